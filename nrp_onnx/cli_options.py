"""Options that several commands share."""

from typing import Annotated

import typer

Recordings = Annotated[
    str | None,
    typer.Option(
        help="A recordings folder, a name from `recordings list`, simulated, or simulated:N. "
        "[default: simulated]"
    ),
]
Reduce = Annotated[str, typer.Option(help="auto, none, avgpool:K or mean.")]
Preprocess = Annotated[
    str | None,
    typer.Option(
        help="imagenet, tf, caffe, raw or a JSON file. [default: the model's, else imagenet]"
    ),
]
Region = Annotated[list[str] | None, typer.Option(help="Only this region; may be repeated.")]
Normalise = Annotated[
    str | None,
    typer.Option(help="zscore or none. [default: none if the rates are normalised already]"),
]
Protocol = Annotated[
    str, typer.Option(help="k-fold, or paper: a single fifth of the images is held out.")
]
Folds = Annotated[int, typer.Option(help="Outer folds over the images, for k-fold.")]
Seed = Annotated[int, typer.Option(help="Of folds, weights and bootstrap.")]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda (an error where it does not work).")]
Overwrite = Annotated[
    bool, typer.Option(help="Replace other runs; activations and trials that fit are kept.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON to stdout.")]
