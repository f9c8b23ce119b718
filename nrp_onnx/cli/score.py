"""The commands score, layers and demo."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nrp_onnx.cli.options import (
    AsJson,
    Device,
    Engine,
    FailAbove,
    Layers,
    Model,
    Preprocess,
    RayAddress,
    Reduce,
    ScoredModel,
    ScorerFile,
    SkipBadStimuli,
    fail,
)
from nrp_onnx.errors import OptionError

if TYPE_CHECKING:
    from nrp_onnx.scoring.options import ScoreOptions

#: Parameters of score that mean something where nothing is trained.
_BESIDE_SCORER = frozenset(
    ("scorer", "recordings", "out", "seed", "device", "fail_above", "as_json")
)


def score_command(
    context: typer.Context,
    model: ScoredModel = None,
    scorer: ScorerFile = None,
    recordings: Annotated[
        str | None,
        typer.Option(
            help="A recordings folder, a name from `recordings list`, simulated, or simulated:N. "
            "[default: simulated]"
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--out",
            help="Output folder; beside --with a JSON file, or none. "
            "[default: runs/MODEL-RECORDINGS]",
        ),
    ] = None,
    layers: Layers = "auto",
    reduce: Reduce = "auto",
    preprocess: Preprocess = None,
    visual_degrees: Annotated[
        float | None,
        typer.Option(
            help="That the model sees; images are put on grey or cut to fit. "
            "[default: those that the images filled]"
        ),
    ] = None,
    region: Annotated[
        list[str] | None, typer.Option(help="Only this region; may be repeated.")
    ] = None,
    normalise: Annotated[
        str | None,
        typer.Option(help="zscore or none. [default: none if the rates are normalised already]"),
    ] = None,
    search: Annotated[
        str,
        typer.Option(help="default, quick, paper, thorough, or a YAML or JSON file."),
    ] = "default",
    protocol: Annotated[
        str | None,
        typer.Option(
            help="k-fold; paper: a single fifth of the images is held out; split: a fixed split of "
            "the recordings. [default: split where they have one, else k-fold]"
        ),
    ] = None,
    folds: Annotated[
        int | None, typer.Option(help="Outer folds over the images, for k-fold. [default: 5]")
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(
            help="A fixed split of the recordings, by name. [default: default, or the only one]"
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of folds, weights and bootstrap.")] = 0,
    seeds: Annotated[
        int,
        typer.Option(
            help="Search and train so often on the same folds, to see what seeds do.", min=1
        ),
    ] = 1,
    device: Device = "auto",
    skip_bad_stimuli: SkipBadStimuli = False,
    overwrite: Annotated[
        bool, typer.Option(help="Replace another run; activations and trials that fit are kept.")
    ] = False,
    activations: Annotated[
        str | None,
        typer.Option(help="Folder of activations, a path or URI. [default: one in the output]"),
    ] = None,
    all_images: Annotated[
        bool,
        typer.Option(help="Leave *_all.onnx, too: fitted to all images, to predict new ones with."),
    ] = False,
    memory: Annotated[
        str | None,
        typer.Option(help="What fits may take of it, such as 800MB. [default: 4GB]"),
    ] = None,
    engine: Engine = "local",
    ray_address: RayAddress = None,
    report: Annotated[bool, typer.Option(help="Write report.html into the output folder.")] = True,
    fail_above: FailAbove = None,
    as_json: AsJson = False,
) -> None:
    """Score a backbone: its NRP-error on neural recordings.

    Example: nrp-onnx score resnet50.onnx --recordings my_recordings -o runs/resnet50

    Example: nrp-onnx score --with runs/resnet50 --recordings monday --fail-above 0.6
    """
    if scorer is not None:
        _check_untrained(context)
        errors = _score_with(scorer, recordings, out, device, seed, as_json)
        _fail_above(errors, fail_above)
        return
    if model is None:
        raise OptionError(
            "no model is given",
            where="MODEL",
            expected="the path of an ONNX backbone, or --with scorer.onnx",
            found="none",
        )
    from nrp_onnx.scoring.options import ScoreOptions

    options = ScoreOptions(
        layers=layers,
        reduce=reduce,
        preprocess=preprocess,
        visual_degrees=visual_degrees,
        regions=tuple(region or ()),
        normalise=normalise,
        search=search,
        protocol=protocol,
        folds=folds,
        split=split,
        seed=seed,
        seeds=seeds,
        device=device,
        skip_bad_stimuli=skip_bad_stimuli,
        overwrite=overwrite,
        all_images=all_images,
        memory=memory,
        activations=activations,
        engine=engine,
        ray_address=ray_address,
        report=report,
    )
    _fail_above(_score(model, recordings, out, options, as_json), fail_above)


def _score(
    model: Path,
    recordings: str | None,
    out: Path | None,
    options: "ScoreOptions",
    as_json: bool,
) -> dict[str, float]:
    """Train, score, print; the NRP-error of each region."""
    from nrp_onnx.api import score_with
    from nrp_onnx.report.terminal import print_table, score_table
    from nrp_onnx.scoring.run_folder import REPORT_FILE

    run = score_with(model, recordings, out, options)
    if as_json:
        content = {**run.result.to_json(), "folder": str(run.folder)}
        print(json.dumps(content, indent=2, ensure_ascii=False))
    else:
        print_table(score_table(run.result))
        print(f"Files: {run.folder}")
        if options.report:
            print(f"Report: {run.folder / REPORT_FILE}")
    return {name: found.nrp_error.value for name, found in run.regions.items()}


def _score_with(
    scorer: Path,
    recordings: str | None,
    out: Path | None,
    device: str,
    seed: int,
    as_json: bool,
) -> dict[str, float]:
    """Score with an exported scorer, print; the NRP-error of each region."""
    from nrp_onnx.export.scorer import scored_recordings
    from nrp_onnx.files import write_json
    from nrp_onnx.notes import Notes
    from nrp_onnx.report.terminal import print_table, scorer_table

    found = scored_recordings(scorer, recordings, device, seed, Notes())
    if out is not None:
        write_json(out, found.to_json())
    if as_json:
        print(json.dumps(found.to_json(), indent=2, ensure_ascii=False))
    else:
        print_table(scorer_table(found))
        if out is not None:
            print(f"File: {out}")
    return {name: region.nrp_error for name, region in found.regions.items()}


def _check_untrained(context: typer.Context) -> None:
    """Refuse a model and what only training takes beside --with."""
    of_training = [
        parameter.opts[0] if parameter.opts[0].startswith("-") else str(parameter.name).upper()
        for parameter in context.command.params
        if parameter.name not in _BESIDE_SCORER
        and (source := context.get_parameter_source(str(parameter.name))) is not None
        and source.name == "COMMANDLINE"
    ]
    if of_training:
        raise OptionError(
            "nothing is trained with a scorer",
            where="--with",
            expected="beside it --recordings, -o, --seed, --device, --fail-above and --json alone",
            found=", ".join(of_training),
            fix="Leave these out.",
        )


def _fail_above(errors: dict[str, float], bound: float | None) -> None:
    """Exit with 1 where an error is over the bound, a line each; stdout may hold JSON."""
    if bound is None:
        return
    from nrp_onnx.scoring.gates import regions_above

    fail(regions_above(errors, bound))


def layers_command(model: Model, as_json: AsJson = False) -> None:
    """List the layers of a backbone: number, name, operator, shape, bytes an image.

    Example: nrp-onnx layers resnet50.onnx
    """
    from nrp_onnx.backbone.feature_graph import with_known_shapes
    from nrp_onnx.backbone.model import load_backbone
    from nrp_onnx.report.terminal import layers_table, print_table

    backbone = load_backbone(model)
    found = with_known_shapes(backbone, backbone.layers)
    if as_json:
        rows = [
            {**asdict(layer), "bytes": None if layer.n_features is None else 4 * layer.n_features}
            for layer in found
        ]
        print(json.dumps(rows, indent=2))
    else:
        print_table(layers_table(found))


def demo_command(
    out: Annotated[Path, typer.Option("-o", "--out", help="Output folder.")] = Path("demo"),
    recordings: Annotated[str, typer.Option(help="simulated or simulated:N.")] = "simulated:960",
) -> None:
    """Train a small network, and score it beside its untrained twin on simulated recordings.

    Example: nrp-onnx demo -o demo
    """
    from nrp_onnx.studies.demo import run_demo

    run_demo(out, recordings)
