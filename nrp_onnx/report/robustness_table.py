"""The study of robustness as a table for a terminal."""

from collections.abc import Mapping
from typing import Any

from rich.table import Table

from nrp_onnx.report.study_figures import correlation_text


def robustness_table(study: Mapping[str, Any]) -> Table:
    """A row a network: its NRP-error, and its sensitivity at each level of noise."""
    recordings = study["recordings"]
    simulated = "  SIMULATED" if recordings["simulated"] else ""
    lines = [
        f"MAE in {study['units']}, held-out images; sensitivity on {study['n_images']} images: "
        "1 is as far as another image; 95 % intervals"
    ]
    for level, found in study["rank_correlation"].items():
        if found is not None:
            lines.append(f"noise of {level}: {correlation_text(found)}")
    table = Table(title=f"Robustness on {recordings['name']}{simulated}", caption="\n".join(lines))
    table.add_column("network")
    table.add_column("NRP-error", justify="right")
    for level in study["rank_correlation"]:
        table.add_column(f"noise of {level}", justify="right")
    for record in study["models"]:
        of_levels = record["sensitivity"].values()
        table.add_row(
            record["model"],
            _cell(record["nrp_error"], record["ci95"]),
            *(_cell(of["value"], of["ci95"]) for of in of_levels),
        )
    return table


def _cell(value: float, interval: list[float]) -> str:
    return f"{value:.3f}\n{interval[0]:.3f}-{interval[1]:.3f}"
