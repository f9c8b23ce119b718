"""Options that several commands have in common."""

from pathlib import Path
from typing import Annotated

import typer

from nrp_onnx.files import check_model_file


def _existing(path: Path) -> Path:
    """Refuse a missing file while options are read: the command would import PyTorch first."""
    check_model_file(path)
    return path


Model = Annotated[Path, typer.Argument(help="An ONNX backbone.", callback=_existing)]
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
