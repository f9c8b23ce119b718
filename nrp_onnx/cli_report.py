"""The command `report`."""

from pathlib import Path
from typing import Annotated

import typer


def report_command(
    runs: Annotated[list[Path], typer.Argument(help="Output folders of score.", metavar="RUN...")],
    out: Annotated[Path, typer.Option("-o", "--out", help="The HTML file.")] = Path("report.html"),
    figures: Annotated[
        Path | None,
        typer.Option(help="A folder that takes every figure as PDF and PNG as well."),
    ] = None,
) -> None:
    """Write one HTML page about a run, or about several side by side.

    Example: nrp-onnx report runs/resnet50 runs/alexnet -o report.html
    """
    from nrp_onnx.report.page import write_report

    write_report(runs, out, figures)
    print(f"Report: {out}" + (f"; figures: {figures}" if figures else ""))
