"""The commands of nrp-onnx study: experiments, each a loop over scores."""

import json
import sys
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from nrp_onnx.cli.options import Model
from nrp_onnx.errors import OptionError

if TYPE_CHECKING:
    from nrp_onnx.recordings import Recordings
    from nrp_onnx.scoring.options import ScoreOptions

Out = Annotated[Path, typer.Option("-o", "--out", help="Folder of the study.")]
RecordingsName = Annotated[str | None, typer.Option(help="As in `score`. [default: simulated]")]
Reduce = Annotated[str, typer.Option(help="As in `score`.")]
Preprocess = Annotated[str | None, typer.Option(help="As in `score`.")]
Region = Annotated[list[str] | None, typer.Option(help="Only this region; may be repeated.")]
Normalise = Annotated[str | None, typer.Option(help="As in `score`.")]
Search = Annotated[str, typer.Option(help="As in `score`.")]
Protocol = Annotated[str | None, typer.Option(help="As in `score`.")]
Folds = Annotated[int | None, typer.Option(help="As in `score`.")]
Split = Annotated[str | None, typer.Option(help="As in `score`.")]
Seed = Annotated[int, typer.Option(help="Of folds, weights, bootstrap and random pruning.")]
Device = Annotated[str, typer.Option(help="As in `score`.")]
Engine = Annotated[str, typer.Option(help="As in `score`; models are tasks.")]
RayAddress = Annotated[str | None, typer.Option(help="As in `score`.")]
Overwrite = Annotated[bool, typer.Option(help="Score again what the folder holds already.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON to stdout.")]


def score_options(context: typer.Context) -> "ScoreOptions":
    """Those of a command's options that are options of a score; a study's runs have no reports."""
    from nrp_onnx.scoring.options import ScoreOptions

    known = {field.name for field in fields(ScoreOptions)}
    given = {key: value for key, value in context.params.items() if key in known}
    return ScoreOptions(**given, report=False)


def opened(name: str | None, region: list[str] | None) -> "Recordings":
    """The recordings of that name, with these regions only if any are named."""
    from nrp_onnx.notes import Notes
    from nrp_onnx.recordings import open_recordings

    recordings = open_recordings(name, Notes())
    return recordings.select_regions(region) if region else recordings


def show(study: dict[str, Any], tables: list[Any], out: Path, as_json: bool) -> None:
    """Print a study: its tables, or all of it as JSON."""
    from nrp_onnx.report.terminal import print_table

    if as_json:
        print(json.dumps(study, indent=2, ensure_ascii=False))
        return
    for table in tables:
        print_table(table)
    print(f"Files: {out}")


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
    protocol: Protocol = None,
    folds: Folds = None,
    split: Split = None,
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
    from nrp_onnx.studies.table1 import study_table1
    from nrp_onnx.studies.tables import linear_table, table1

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
    protocol: Protocol = None,
    folds: Folds = None,
    split: Split = None,
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
    from nrp_onnx.studies.layers import study_layers
    from nrp_onnx.studies.tables import layers_study_table

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
    from nrp_onnx.studies.sizes import study_sizes
    from nrp_onnx.studies.tables import sizes_table

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
    protocol: Protocol = None,
    folds: Folds = None,
    split: Split = None,
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
    from nrp_onnx.studies.pruning import study_pruning
    from nrp_onnx.studies.tables import pruning_table

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


def robustness_command(
    context: typer.Context,
    models: Annotated[list[Path], typer.Argument(help="ONNX backbones.")],
    out: Out,
    levels: Annotated[
        str,
        typer.Option(help="Deviations of the pixel noise, of 255 grey levels, with commas."),
    ] = "4,8,16,32",
    fgsm: Annotated[
        str | None,
        typer.Option(
            help="Sizes of steps along the sign of the network's gradient, of 255 grey levels, with "
            "commas; of models that were converted by the name of a PyTorch network. [default: none]"
        ),
    ] = None,
    images: Annotated[int, typer.Option(min=2, help="How many of the stimuli are changed.")] = 128,
    recordings: RecordingsName = None,
    reduce: Reduce = "auto",
    preprocess: Preprocess = None,
    region: Region = None,
    normalise: Normalise = None,
    search: Search = "default",
    protocol: Protocol = None,
    folds: Folds = None,
    split: Split = None,
    seed: Seed = 0,
    device: Device = "auto",
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Score several networks, and see how far changes of images move the activations of each.

    Example: nrp-onnx study robustness a.onnx b.onnx c.onnx --recordings my_recordings -o robustness
    """
    from nrp_onnx.studies.robustness import study_robustness
    from nrp_onnx.studies.robustness_report import robustness_table

    options = score_options(context)
    noise, along = _levels(levels, "--levels"), _levels(fgsm, "--fgsm") if fgsm else []
    study = study_robustness(models, opened(recordings, region), out, noise, images, options, along)
    show(study, [robustness_table(study)], out, as_json)


def _levels(text: str, option: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise OptionError(
            "these are no levels",
            where=option,
            expected="numbers from 0 up with commas",
            found=repr(text),
        ) from None


class ManyRecordings(TyperCommand):
    """A command whose ``--recordings`` takes all words up to the next option."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read ``--recordings A B`` as ``--recordings A --recordings B``."""
        repeated: list[str] = []
        of_recordings = False
        for word in args:
            if of_recordings and not word.startswith("-"):
                if repeated[-1] != "--recordings":
                    repeated.append("--recordings")
            else:
                of_recordings = word == "--recordings"
            repeated.append(word)
        return super().parse_args(ctx, repeated)


def arena_command(
    context: typer.Context,
    models: Annotated[
        list[Path], typer.Argument(help="ONNX backbones; they come before --recordings.")
    ],
    out: Out,
    recordings: Annotated[
        list[str],
        typer.Option(help="As in `score`; several with spaces between them, or repeated."),
    ],
    animals: Annotated[
        str | None,
        typer.Option(
            help="Of which animal recordings are, as monday=A,tuesday=B by the last parts of their "
            "names, where their sites.csv has no column animal."
        ),
    ] = None,
    page: Annotated[
        Path | None, typer.Option(help="Also write the results to this Markdown file.")
    ] = None,
    reduce: Reduce = "auto",
    preprocess: Annotated[
        str | None, typer.Option(help="As in `score`, for all; or by model: a=tf,b=caffe.")
    ] = None,
    region: Region = None,
    normalise: Normalise = None,
    search: Search = "default",
    protocol: Protocol = None,
    folds: Folds = None,
    split: Split = None,
    seed: Seed = 0,
    device: Device = "auto",
    engine: Engine = "local",
    ray_address: RayAddress = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Score several networks on several recordings, and pool them over animals and sessions.

    Example: nrp-onnx study arena a.onnx b.onnx --recordings monday tuesday -o arena
    """
    from dataclasses import replace

    from nrp_onnx.studies.arena import study_arena
    from nrp_onnx.studies.arena_tables import arena_tables
    from nrp_onnx.studies.arena_words import answer

    options = score_options(context)
    own: dict[str, str] = {}
    if preprocess is not None and "=" in preprocess:
        own = _named(preprocess, "--preprocess")
        options = replace(options, preprocess=None)
    names = [Path(name).name for name in recordings]
    if len(set(names)) < len(names):
        raise OptionError(
            "recordings of the same name",
            where="--recordings",
            expected="names or folders whose last parts differ",
            found=", ".join(recordings),
        )
    shown = {name: opened(of, region) for name, of in zip(names, recordings, strict=True)}
    of_animals = _named(animals, "--animals") if animals else {}
    command = ["nrp-onnx", *sys.argv[1:]]
    study = study_arena(models, shown, out, options, own, of_animals, page, command)
    show(study, arena_tables(study), out, as_json)
    if not as_json:
        print("\n".join(answer(study)))


def _named(text: str, option: str) -> dict[str, str]:
    """Pairs such as a=tf,b=caffe."""
    found = dict(part.partition("=")[::2] for part in text.split(","))
    if not all(key and value for key, value in found.items()):
        raise OptionError(
            "these are no pairs", where=option, expected="name=value with commas", found=repr(text)
        )
    return found


study_app = typer.Typer(help="Experiments, each a loop over scores.", no_args_is_help=True)
study_app.command("table1")(table1_command)
study_app.command("layers")(layers_command)
study_app.command("sizes")(sizes_command)
study_app.command("pruning")(pruning_command)
study_app.command("robustness")(robustness_command)
study_app.command("arena", cls=ManyRecordings)(arena_command)


@study_app.command("recovery")
def recovery_command(
    models: Annotated[list[Path], typer.Argument(help="ONNX backbones.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder of the study.")],
    recordings: Annotated[
        str | None,
        typer.Option(help="Whose stimuli are shown, as in `score`. [default: simulated]"),
    ] = None,
    layers: Annotated[str, typer.Option(help="auto, or names with commas.")] = "auto",
    reduce: Annotated[str, typer.Option(help="As in `score`.")] = "auto",
    preprocess: Annotated[str | None, typer.Option(help="As in `score`.")] = None,
    populations: Annotated[int, typer.Option(min=1, help="Simulated populations.")] = 10,
    sites: Annotated[int, typer.Option(min=2, help="Sites of a population.")] = 60,
    search: Annotated[str, typer.Option(help="As in `score`.")] = "default",
    seed: Annotated[int, typer.Option(help="Of sites, trials, split and weights.")] = 0,
    device: Annotated[str, typer.Option(help="As in `score`.")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON to stdout.")] = False,
) -> None:
    """Simulate sites that read a known layer, and see whether the score finds it.

    Example: nrp-onnx study recovery a.onnx b.onnx --recordings simulated:960 -o recovery
    """
    from nrp_onnx.report.terminal import print_table
    from nrp_onnx.studies.recovery import RecoveryOptions, study_recovery
    from nrp_onnx.studies.recovery_summary import confusion_table, recovery_lines, removed_table

    options = RecoveryOptions(
        layers=layers,
        reduce=reduce,
        preprocess=preprocess,
        populations=populations,
        sites=sites,
        search=search,
        seed=seed,
        device=device,
    )
    result = study_recovery(models, recordings, out, options)
    if as_json:
        print(json.dumps(result, indent=2, ensure_ascii=False))
        return
    for predictor in result["first"]:
        print_table(confusion_table(result, predictor))
    print_table(removed_table(result))
    print("\n".join(recovery_lines(result)))
    print(f"Files: {out}")
