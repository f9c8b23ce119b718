"""The command nrp-onnx prune."""

from pathlib import Path
from typing import Annotated

import typer


def prune_command(
    model: Annotated[Path, typer.Argument(help="An ONNX backbone.")],
    sparsity: Annotated[
        float, typer.Option(help="The share of the weights to be zero, from 0 to 1.")
    ],
    out: Annotated[Path, typer.Option("-o", "--out", help="The ONNX file to write.")],
    scope: Annotated[
        str, typer.Option(help="global: rank all weights together; layer: those of each layer.")
    ] = "global",
    random: Annotated[
        bool, typer.Option("--random", help="Drop random weights, as a control.")
    ] = False,
    seed: Annotated[int, typer.Option(help="Of --random.")] = 0,
) -> None:
    """Set the weights of least magnitude to zero: kernels and matrices, no biases, no normalisation.

    Example: nrp-onnx prune resnet50.onnx --sparsity 0.5 -o resnet50_half.onnx
    """
    from nrp_onnx.backbone.pruning import prune_model

    done = prune_model(model, out, sparsity, scope, seed if random else None)
    print(
        f"{out}: {done.sparsity:.4f} of its {done.n_weights:,} weights are zero ({done.n_zero:,})"
    )
