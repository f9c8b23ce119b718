"""The studies of the paper as tables for a terminal."""

from collections.abc import Mapping
from typing import Any

from rich.table import Table

from nrp_onnx.report.terminal import difference_with_interval
from nrp_onnx.report.words import NOT_BETWEEN_RECORDINGS

_BESIDE = "; R2: median over sites, of the predictor left of it"


def table1(study: Mapping[str, Any]) -> Table:
    """The paper's Table 1: what it says of each network, and beside it what was measured."""
    rank = study["rank_correlation"]
    caption = (
        f"{_units(study)}; explained: of the error over the noise floor, the share removed "
        f"({NOT_BETWEEN_RECORDINGS})"
    )
    if rank:
        caption += (
            f"; Spearman's rho of NRP-error and Top-1: {rank['rho']:.2f} (n = {rank['n']}, "
            f"p = {rank['p']:.2g})"
        )
    regions = list(study["models"][0]["regions"])
    table = Table(title=_title("Networks", study), caption=caption)
    table.add_column("network")
    for heading in ("parameters", "Top-1", "Top-5", "paper's\nNRP-error", "NRP-error"):
        table.add_column(heading, justify="right")
    for region in regions:
        for heading in ("NRP-error", "explained"):
            table.add_column(f"{region}\n{heading}", justify="right")
    for record in study["models"]:
        paper = record["paper"] or {}
        cells = [_name(record), f"{record['n_parameters']:,}"]
        cells += [_number(paper.get(key)) for key in ("top1", "top5", "nrp_error")]
        cells.append(_error(record))
        for region in regions:
            removed = record["regions"][region]["explainable_removed"]
            cells.append(_error(record["regions"][region]))
            cells.append("-" if removed is None else f"{removed:.0%}")
        table.add_row(*cells)
        table.add_section()
    return table


def linear_table(study: Mapping[str, Any]) -> Table:
    """The linear predictors of each network beside the headline, on the same activations."""
    regions = list(study["models"][0]["regions"])
    table = Table(title=_title("Linear regression", study), caption=_units(study) + _BESIDE)
    table.add_column("network")
    for region in regions:
        for heading in ("NRP-error", "least squares", "R2", "ridge", "R2", "Brain-Score"):
            table.add_column(f"{region}\n{heading}", justify="right")
    for record in study["models"]:
        cells = [_name(record)]
        for region in regions:
            found = record["regions"][region]
            cells.append(_number(found["nrp_error"]))
            for name in ("ols", "ridge"):
                cells += [_number(found[name]["mae"]), _number(found[name]["r2"])]
            cells.append(_number(found["brainscore"]))
        table.add_row(*cells)
    return table


def layers_study_table(study: Mapping[str, Any]) -> Table:
    """The error of each layer alone."""
    regions = list(study["layers"][0]["regions"])
    table = Table(title=_title(f"Layers of {study['model']}", study), caption=_units(study))
    table.add_column("layer")
    for region in regions:
        for heading in ("NRP-error", "ridge", "PLS-25"):
            table.add_column(f"{region}\n{heading}", justify="right")
    for record in study["layers"]:
        cells = [record["layer"]]
        for region in regions:
            found = record["regions"][region]
            cells += [
                _on_a_line(found),
                _number(found["ridge"]["mae"]),
                _number(found["pls"]["mae"]),
            ]
        table.add_row(*cells)
    return table


def sizes_table(study: Mapping[str, Any]) -> Table:
    """Validation errors of heads of each size."""
    simulated = "  SIMULATED" if study["recordings"]["simulated"] else ""
    table = Table(
        title=f"Sizes of heads on {study['model']}, {study['recordings']['name']}{simulated}",
        caption="least validation error (MAE / s.d. of the rates) in each fold, mean over folds",
    )
    for heading in ("layers", "NRP-L1", "NRP-L2", "validation error", "folds", "trials"):
        table.add_column(heading, justify="right")
    least = min(size["validation_mae"] for size in study["sizes"])
    for size in study["sizes"]:
        interval = size["ci95"]
        error = f"{size['validation_mae']:.4f}"
        if interval:
            error += f" [{interval[0]:.4f}, {interval[1]:.4f}]"
        table.add_row(
            *(str(size[key]) for key in ("n_layers", "l1", "l2")),
            error,
            *(str(size[key]) for key in ("n_folds", "n_trials")),
            style="bold" if size["validation_mae"] == least else None,
        )
    return table


def pruning_table(study: Mapping[str, Any]) -> Table:
    """NRP-errors as more weights are zero, and their paired differences from the unpruned model."""
    regions = list(study["models"][0]["regions"])
    table = Table(title=_title(f"Pruning of {study['model']}", study), caption=_units(study))
    table.add_column("weights that are zero")
    for heading in (*regions, "NRP-error", "less unpruned, paired"):
        table.add_column(heading, justify="right")
    for record in study["models"]:
        apart = record.get("from_unpruned")
        table.add_row(
            f"{record['sparsity']:.1%} {record['kind']}",
            *(_on_a_line(record["regions"][region]) for region in regions),
            _on_a_line(record),
            difference_with_interval(apart["difference"], apart["ci95"]) if apart else "",
        )
    return table


def _title(what: str, study: Mapping[str, Any]) -> str:
    recordings = study["recordings"]
    return f"{what} on {recordings['name']}" + ("  SIMULATED" if recordings["simulated"] else "")


def _units(study: Mapping[str, Any]) -> str:
    return f"MAE in {study['units']}, held-out images; 95 % intervals over images and sites"


def _name(record: Mapping[str, Any]) -> str:
    return f"{record['model']}{' (random)' if record['weights'] == 'none' else ''}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _error(found: Mapping[str, Any]) -> str:
    low, high = found["ci95"]
    return f"{found['nrp_error']:.3f}\n{low:.3f}-{high:.3f}"


def _on_a_line(found: Mapping[str, Any]) -> str:
    low, high = found["ci95"]
    return f"{found['nrp_error']:.3f} [{low:.3f}, {high:.3f}]"
