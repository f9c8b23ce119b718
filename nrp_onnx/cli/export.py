"""``nrp-onnx export``: smaller variants of a run's predictor."""

from pathlib import Path
from typing import Annotated

import typer

from nrp_onnx.errors import OptionError


def export_command(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a run.")],
    recordings: Annotated[
        str, typer.Option("--recordings", help="The recordings of the run: the change is measured.")
    ],
    fp16: Annotated[
        bool, typer.Option("--fp16", help="Store the weights in half precision: half the file.")
    ] = False,
    tolerance: Annotated[
        float | None,
        typer.Option(
            help="How far a rate may move, in standard deviations of its site. [default: 0.05]"
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", help="The file. [default: predictor_fp16.onnx in RUN]"),
    ] = None,
) -> None:
    """Write a smaller predictor, and say by how much its rates and its NRP-error differ.

    Example: nrp-onnx export runs/model --fp16 --recordings my_recordings
    """
    if not fp16:
        raise OptionError(
            "nothing is asked for", where="export", expected="--fp16", found="no variant"
        )
    from nrp_onnx.export.half_precision import TOLERANCE, export_half
    from nrp_onnx.notes import Notes
    from nrp_onnx.recordings import open_recordings

    opened = open_recordings(recordings, Notes())
    found = export_half(run, opened, out, TOLERANCE if tolerance is None else tolerance)
    variant = found.variant
    print(f"{found.path}: {found.bytes / 1e6:.1f} MB instead of {found.bytes_before / 1e6:.1f} MB")
    print(
        f"on {variant.n_images:,} held-out images rates move by at most "
        f"{variant.largest_change_sd:.2g} standard deviations of a site"
    )
    for name, error in variant.nrp_error.items():
        print(f"NRP-error {name}: {variant.nrp_error_before[name]:.4f} -> {error:.4f}")
