"""The study of robustness as a table for a terminal."""

from collections.abc import Mapping
from typing import Any

from rich.table import Table

from nrp_onnx.report.robustness_changes import changes_of
from nrp_onnx.report.study_figures import correlation_text


def robustness_table(study: Mapping[str, Any]) -> Table:
    """A row a network: its NRP-error, and its sensitivity to each change of images."""
    recordings = study["recordings"]
    simulated = "  SIMULATED" if recordings["simulated"] else ""
    lines = [
        f"MAE in {study['units']}, held-out images; sensitivity on {study['n_images']} images: "
        "1 is as far as another image; 95 % intervals"
    ]
    changes = changes_of(study)
    for change in changes:
        if change.correlation is not None:
            lines.append(f"{change.name}: {correlation_text(change.correlation)}")
    table = Table(title=f"Robustness on {recordings['name']}{simulated}", caption="\n".join(lines))
    table.add_column("network")
    table.add_column("NRP-error", justify="right")
    for change in changes:
        table.add_column(change.name, justify="right")
    for record in study["models"]:
        found = [record[change.key][change.level] for change in changes]
        table.add_row(
            record["model"],
            _cell(record["nrp_error"], record["ci95"]),
            *(_cell(of["value"], of["ci95"]) for of in found),
        )
    return table


def _cell(value: float | None, interval: list[float]) -> str:
    if value is None:
        return "no gradients"
    return f"{value:.3f}\n{interval[0]:.3f}-{interval[1]:.3f}"
