"""The commands report and compare."""

import json
from pathlib import Path
from typing import Annotated

import typer

from nrp_onnx.cli.options import fail


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


def compare_command(
    runs: Annotated[list[Path], typer.Argument(help="Output folders of two or more scores.")],
    out: Annotated[
        Path | None, typer.Option("-o", "--out", help="Write the leaderboard to a CSV file.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the bootstrap.")] = 0,
    fail_if_worse: Annotated[
        bool,
        typer.Option(
            "--fail-if-worse",
            help="Exit with 1 where the last run is worse than the first in a region: the 95 % "
            "interval of their paired difference lies above 0.",
        ),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON to stdout.")] = False,
) -> None:
    """Compare runs on the same recordings: differences of the NRP-error, paired by image and site.

    Example: nrp-onnx compare runs/resnet50 runs/mobilenet -o leaderboard.csv
    """
    from nrp_onnx.report.comparison import leaderboard_table, pairs_table, write_leaderboard
    from nrp_onnx.report.terminal import print_table
    from nrp_onnx.scoring.comparison import compare_runs
    from nrp_onnx.scoring.gates import regions_worse
    from nrp_onnx.scoring.run import read_run

    comparison = compare_runs([read_run(folder) for folder in runs], seed)
    if out is not None:
        write_leaderboard(out, comparison)
    if as_json:
        print(json.dumps(comparison.to_json(), indent=2, ensure_ascii=False))
    else:
        print_table(leaderboard_table(comparison))
        print_table(pairs_table(comparison))
    if fail_if_worse:
        fail(regions_worse(comparison, str(runs[0]), str(runs[-1])))
