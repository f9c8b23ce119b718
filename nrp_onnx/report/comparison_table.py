"""Compared runs as tables for a terminal, and as a leaderboard in CSV."""

import csv
from pathlib import Path
from typing import Any

from rich.table import Table

from nrp_onnx.files import whole_file
from nrp_onnx.report.table import difference_with_interval


def leaderboard_table(comparison: dict[str, Any]) -> Table:
    """The runs from the least NRP-error up; SIMULATED where the recordings are."""
    table = Table(
        title=_title(comparison),
        caption=f"NRP-error in {comparison['units']}, {comparison['n_images']} held-out images; "
        "[95 % interval] over images and sites",
    )
    table.add_column("rank", justify="right")
    table.add_column("run")
    table.add_column("model")
    for heading in ("NRP-error", *comparison["runs"][0]["regions"]):
        table.add_column(heading, justify="right")
    for run in comparison["runs"]:
        low, high = run["rank_ci95"]
        table.add_row(
            f"{run['rank']} [{low}, {high}]",
            run["folder"],
            run["model"],
            _with_interval(run["nrp_error"], run["ci95"]),
            *(_with_interval(found["value"], found["ci95"]) for found in run["regions"].values()),
        )
    return table


def pairs_table(comparison: dict[str, Any]) -> Table:
    """The paired difference of every two runs, and at how many sites the first errs less."""
    table = Table(title="Paired differences of the NRP-error, first less second")
    for heading in ("first", "second"):
        table.add_column(heading)
    for heading in ("difference", "better at"):
        table.add_column(heading, justify="right")
    for pair in comparison["pairs"]:
        table.add_row(
            pair["first"],
            pair["second"],
            difference_with_interval(pair),
            f"{pair['wins']} of {pair['n_sites']} sites",
        )
    return table


def write_leaderboard(path: Path, comparison: dict[str, Any]) -> None:
    """Write a CSV file with one row a run, from the least NRP-error up."""
    regions = list(comparison["runs"][0]["regions"])
    columns = ["rank", "rank_low", "rank_high", "run", "model", "nrp_error", "low", "high"]
    for region in regions:
        columns += [f"{region}_nrp_error", f"{region}_low", f"{region}_high"]
    columns += ["units", "recordings", "simulated"]
    about = comparison["recordings"]
    with whole_file(path) as part, part.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        for run in comparison["runs"]:
            row = [run["rank"], *run["rank_ci95"], run["folder"], run["model"]]
            row += [run["nrp_error"], *run["ci95"]]
            for region in regions:
                row += [run["regions"][region]["value"], *run["regions"][region]["ci95"]]
            writer.writerow([*row, comparison["units"], about["name"], about["simulated"]])


def _title(comparison: dict[str, Any]) -> str:
    about = comparison["recordings"]
    return f"Runs on {about['name']}" + ("  SIMULATED" if about["simulated"] else "")


def _with_interval(value: float, interval: list[float]) -> str:
    return f"{value:.3f} [{interval[0]:.3f}, {interval[1]:.3f}]"
