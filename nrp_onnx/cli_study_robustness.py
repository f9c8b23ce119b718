"""The command `study robustness`."""

from pathlib import Path
from typing import Annotated

import typer

from nrp_onnx.cli_study_options import (
    AsJson,
    Device,
    Folds,
    Normalise,
    Out,
    Overwrite,
    Preprocess,
    Protocol,
    RecordingsName,
    Reduce,
    Region,
    Search,
    Seed,
    opened,
    score_options,
    show,
)  # fmt: skip
from nrp_onnx.errors import OptionError


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
    protocol: Protocol = "k-fold",
    folds: Folds = 5,
    seed: Seed = 0,
    device: Device = "auto",
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Score several networks, and see how far changes of images move the activations of each.

    Example: nrp-onnx study robustness a.onnx b.onnx c.onnx --recordings my_recordings -o robustness
    """
    from nrp_onnx.report.robustness_table import robustness_table
    from nrp_onnx.studies.robustness import study_robustness

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
