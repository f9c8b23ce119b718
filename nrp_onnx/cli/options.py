"""Options that several commands have in common, and how a command fails a pipeline."""

import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from nrp_onnx.errors import OptionError
from nrp_onnx.files import check_model_file, exported_file


def _existing(path: Path | None) -> Path | None:
    """Refuse a missing file while options are read: the command would import PyTorch first."""
    if path is not None:
        check_model_file(path)
    return path


def _scorer_of(path: Path | None) -> Path | None:
    return None if path is None else exported_file(path, "scorer.onnx")


def _bound(value: float | None) -> float | None:
    """Refuse a bound that no error is over, before an hour is spent."""
    if value is not None and not (math.isfinite(value) and value >= 0):
        raise OptionError(
            "this is no bound of an error",
            where="--fail-above",
            expected="a number of 0 or more, in the units of the score",
            found=value,
        )
    return value


Model = Annotated[Path, typer.Argument(help="An ONNX backbone.", callback=_existing)]
ScoredModel = Annotated[
    Path | None,
    typer.Argument(help="An ONNX backbone; none beside --with.", callback=_existing),
]
ScorerFile = Annotated[
    Path | None,
    typer.Option(
        "--with",
        help="The scorer.onnx of a run, or its folder: score recordings of the same sites with it, "
        "without training.",
        callback=_scorer_of,
    ),
]
FailAbove = Annotated[
    float | None,
    typer.Option(
        help="Exit with 1 where a region's NRP-error is above this, in the units of the score.",
        callback=_bound,
    ),
]
Layers = Annotated[
    str, typer.Option(help="auto, or names or numbers of `nrp-onnx layers`, with commas.")
]
Reduce = Annotated[
    str,
    typer.Option(
        help="auto, none, avgpool:K, mean, cls, sketch:D, pca:K, or rules a layer: "
        "'layer4*=avgpool:2,fc=none'."
    ),
]
Preprocess = Annotated[
    str | None,
    typer.Option(
        help="imagenet, tf, caffe, raw or a JSON file. [default: the model's, else imagenet]"
    ),
]
Device = Annotated[
    str, typer.Option(help="auto, cpu, cuda or tensorrt (an error where it does not work).")
]
SkipBadStimuli = Annotated[
    bool, typer.Option(help="Leave out images that do not open, instead of failing.")
]
Engine = Annotated[
    str, typer.Option(help="local, or ray: independent parts as tasks of a Ray cluster.")
]
RayAddress = Annotated[
    str | None,
    typer.Option(help="Of the cluster, host:port. [default: RAY_ADDRESS, else this machine]"),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON to stdout.")]


def fail(reasons: Sequence[str]) -> None:
    """End with exit code 1 for these reasons, a line each on stderr; without any, go on."""
    for reason in reasons:
        print(reason, file=sys.stderr)
    if reasons:
        raise typer.Exit(1)
