"""The commands `study table1|layers|sizes|pruning`: the experiments of the paper."""

import json
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nrp_onnx.errors import OptionError

if TYPE_CHECKING:
    from nrp_onnx.main_job import ScoreOptions
    from nrp_onnx.recordings import Recordings

Model = Annotated[Path, typer.Argument(help="An ONNX backbone.")]
Out = Annotated[Path, typer.Option("-o", "--out", help="Folder of the study.")]
RecordingsName = Annotated[str | None, typer.Option(help="As in `score`. [default: simulated]")]
Reduce = Annotated[str, typer.Option(help="As in `score`.")]
Preprocess = Annotated[str | None, typer.Option(help="As in `score`.")]
Region = Annotated[list[str] | None, typer.Option(help="Only this region; may be repeated.")]
Normalise = Annotated[str | None, typer.Option(help="As in `score`.")]
Search = Annotated[str, typer.Option(help="As in `score`.")]
Protocol = Annotated[str, typer.Option(help="As in `score`.")]
Folds = Annotated[int, typer.Option(help="As in `score`.")]
Seed = Annotated[int, typer.Option(help="Of folds, weights, bootstrap and random pruning.")]
Device = Annotated[str, typer.Option(help="As in `score`.")]
Engine = Annotated[str, typer.Option(help="As in `score`; models are tasks.")]
RayAddress = Annotated[str | None, typer.Option(help="As in `score`.")]
Overwrite = Annotated[bool, typer.Option(help="Score again what the folder holds already.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON to stdout.")]


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

    options = _score_options(context)
    study = study_table1(models or [], _opened(recordings, region), out, options, weights)
    _show(study, [table1(study), linear_table(study)], out, as_json)


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

    options = _score_options(context)
    study = study_layers(model, _opened(recordings, region), out, options)
    _show(study, [layers_study_table(study)], out, as_json)


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
    _show(study, [sizes_table(study)], out, as_json)


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

    options = _score_options(context)
    shares = _shares(sparsity)
    opened = _opened(recordings, region)
    study = study_pruning(model, opened, out, shares, options, scope, fine_tuned or [])
    _show(study, [pruning_table(study)], out, as_json)


def _score_options(context: typer.Context) -> "ScoreOptions":
    """Those of a command's options that are options of a score; a study's runs have no reports."""
    from nrp_onnx.main_job import ScoreOptions

    known = {field.name for field in fields(ScoreOptions)}
    given = {key: value for key, value in context.params.items() if key in known}
    return ScoreOptions(**given, report=False)


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


def _opened(name: str | None, region: list[str] | None) -> "Recordings":
    from nrp_onnx.notes import Notes
    from nrp_onnx.recordings import open_recordings

    recordings = open_recordings(name, Notes())
    return recordings.select_regions(region) if region else recordings


def _show(study: dict[str, Any], tables: list[Any], out: Path, as_json: bool) -> None:
    from nrp_onnx.report.table import print_table

    if as_json:
        print(json.dumps(study, indent=2, ensure_ascii=False))
        return
    for table in tables:
        print_table(table)
    print(f"Files: {out}")
