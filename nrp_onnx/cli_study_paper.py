"""The commands `study table1|layers|sizes|pruning`: the experiments of the paper."""

from pathlib import Path
from typing import Annotated

import typer

from nrp_onnx.cli_study_options import (
    AsJson,
    Device,
    Engine,
    Folds,
    Model,
    Normalise,
    Out,
    Overwrite,
    Preprocess,
    Protocol,
    RayAddress,
    RecordingsName,
    Reduce,
    Region,
    Search,
    Seed,
    opened,
    score_options,
    show,
)
from nrp_onnx.errors import OptionError


def table1_command(
    context: typer.Context,
    out: Out,
    models: Annotated[
        list[Path] | None,
        typer.Argument(help="ONNX backbones. [default: the paper's eight networks, converted]"),
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(
            help="Of the paper's networks: imagenet (downloaded) or none (random). "
            "[default: imagenet]"
        ),
    ] = None,
    recordings: RecordingsName = None,
    reduce: Reduce = "auto",
    preprocess: Preprocess = None,
    region: Region = None,
    normalise: Normalise = None,
    search: Search = "default",
    protocol: Protocol = "k-fold",
    folds: Folds = 5,
    seed: Seed = 0,
    device: Device = "auto",
    engine: Engine = "local",
    ray_address: RayAddress = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Score several networks with one protocol: the paper's Table 1 and Figures 2A to 2C.

    Example: nrp-onnx study table1 --recordings majajhong2015 -o table1
    """
    from nrp_onnx.report.study_tables import linear_table, table1
    from nrp_onnx.studies.table1 import study_table1

    options = score_options(context)
    study = study_table1(models or [], opened(recordings, region), out, options, weights)
    show(study, [table1(study), linear_table(study)], out, as_json)


def layers_command(
    context: typer.Context,
    model: Model,
    out: Out,
    layers: Annotated[
        str, typer.Option(help="auto (up to 12 over the depth), all, or names with commas.")
    ] = "auto",
    recordings: RecordingsName = None,
    reduce: Reduce = "auto",
    preprocess: Preprocess = None,
    region: Region = None,
    normalise: Normalise = None,
    search: Search = "default",
    protocol: Protocol = "k-fold",
    folds: Folds = 5,
    seed: Seed = 0,
    device: Device = "auto",
    engine: Engine = "local",
    ray_address: RayAddress = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Score each layer of a backbone alone, with ridge and PLS beside the NRP head.

    Example: nrp-onnx study layers resnet50.onnx --recordings my_recordings -o layers
    """
    from nrp_onnx.report.study_tables import layers_study_table
    from nrp_onnx.studies.layers import study_layers

    options = score_options(context)
    study = study_layers(model, opened(recordings, region), out, options)
    show(study, [layers_study_table(study)], out, as_json)


def sizes_command(
    run: Annotated[Path, typer.Argument(help="Output folder of a score.")],
    out: Out,
    as_json: AsJson = False,
) -> None:
    """Show what a search found out about the sizes of its heads: the paper's Figure 3A.

    Example: nrp-onnx study sizes runs/mobilenet -o sizes
    """
    from nrp_onnx.report.study_tables import sizes_table
    from nrp_onnx.studies.sizes import study_sizes

    study = study_sizes(run, out)
    show(study, [sizes_table(study)], out, as_json)


def pruning_command(
    context: typer.Context,
    model: Model,
    out: Out,
    sparsity: Annotated[
        str, typer.Option(help="Shares of the weights that are to be zero, with commas.")
    ] = "0,0.1,0.2,0.3,0.4,0.5,0.6,0.7,0.8",
    scope: Annotated[str, typer.Option(help="global or layer, as in `prune`.")] = "global",
    fine_tuned: Annotated[
        list[Path] | None,
        typer.Option(help="A further model, such as one trained after pruning; may be repeated."),
    ] = None,
    recordings: RecordingsName = None,
    reduce: Reduce = "auto",
    preprocess: Preprocess = None,
    region: Region = None,
    normalise: Normalise = None,
    search: Search = "default",
    protocol: Protocol = "k-fold",
    folds: Folds = 5,
    seed: Seed = 0,
    device: Device = "auto",
    engine: Engine = "local",
    ray_address: RayAddress = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Score a backbone as more and more of its weights are zero, the least or random ones: Figure 3B.

    Example: nrp-onnx study pruning resnet50.onnx --recordings my_recordings -o pruning
    """
    from nrp_onnx.report.study_tables import pruning_table
    from nrp_onnx.studies.pruning import study_pruning

    options = score_options(context)
    shares = _shares(sparsity)
    study = study_pruning(
        model, opened(recordings, region), out, shares, options, scope, fine_tuned or []
    )
    show(study, [pruning_table(study)], out, as_json)


def _shares(text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise OptionError(
            "these are no shares of the weights",
            where="--sparsity",
            expected="numbers from 0 to 1 with commas",
            found=repr(text),
        ) from None
