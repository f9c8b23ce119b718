"""Results as tables for a terminal."""

from rich.console import Console
from rich.table import Table

from nrp_onnx.backbone.layers import Layer
from nrp_onnx.report.words import predictor_name
from nrp_onnx.scoring.result import Protocol, RegionScore, Result
from nrp_onnx.statistics import Interval


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _held_out(protocol: Protocol) -> str:
    if protocol.name == "paper":
        return "a single held-out fifth of the images"
    return f"{protocol.folds}-fold, held-out images"


def difference_with_interval(difference: float, ci95: Interval) -> str:
    """A paired difference as ``-0.012 [-0.015, -0.009]``."""
    low, high = ci95
    return f"{difference:+.3f} [{low:+.3f}, {high:+.3f}]"


def score_table(result: Result) -> Table:
    """Every predictor of every region, and the NRP head less each; SIMULATED where it is."""
    recordings = result.recordings
    simulated = "  SIMULATED" if recordings.simulated else ""
    weights = (result.model.source or {}).get("weights")
    untrained = " (weights none: random)" if weights == "none" else ""
    table = Table(
        title=f"{result.model.file}{untrained} on {recordings.name}{simulated}",
        caption=f"MAE in {result.units}; {_held_out(result.protocol)}; "
        "[95 % interval] over images and sites; explained: of the error over the noise floor, the "
        "share that is removed; R2, r, r/ceiling: median over sites; Brain-Score: of splits of its "
        "own",
    )
    for heading in ("region", "predictor"):
        table.add_column(heading)
    headings = ("MAE", "95 %", "explained", "R2", "r", "r/ceiling", "NRP head less it", "better at")
    for heading in headings:
        table.add_column(heading, justify="right")
    for region, found in result.regions.items():
        for name, numbers in found.predictors.items():
            low, high = numbers.mae_ci95
            removed = numbers.explainable_removed
            paired = found.comparisons.get(name)
            table.add_row(
                f"{region} ({found.n_sites} sites)" if name == "mean" else "",
                predictor_name(name),
                _number(numbers.mae),
                f"{low:.3f} to {high:.3f}",
                "-" if removed is None else f"{removed:.1%}",
                _number(numbers.r2),
                _number(numbers.pearson_r),
                _number(numbers.pearson_r_normalised),
                difference_with_interval(paired.difference, paired.ci95) if paired else "",
                f"{paired.wins} of {paired.n_sites} sites" if paired else "",
                style="bold" if name == "nrp" else None,
            )
        _add_limits(table, found)
        table.add_section()
    table.add_row("all", "NRP-error", _number(result.nrp_error), style="bold")
    return table


def _add_limits(table: Table, found: RegionScore) -> None:
    """What trial noise leaves to reach, and Brain-Score, as rows of `score_table`."""
    reliability, brainscore = found.reliability, found.brainscore
    ceiling = reliability**0.5 if reliability is not None and reliability > 0 else None
    floor = _number(found.noise_floor)
    table.add_row("", "noise floor, ceiling", floor, "", "", "", _number(ceiling), style="dim")
    if brainscore is not None:
        score = f"Brain-Score {_number(brainscore.score)}"
        table.add_row("", score, "", "", "", "", _number(brainscore.r), style="dim")


def layers_table(layers: list[Layer]) -> Table:
    """The layers of a backbone, with what an image costs in each (float32)."""
    table = Table()
    for heading in ("layer", "op", "shape", "layout"):
        table.add_column(heading)
    table.add_column("bytes an image", justify="right")
    for layer in layers:
        shape = "?" if layer.shape is None else " x ".join(map(str, layer.shape))
        size = "?" if layer.n_features is None else f"{4 * layer.n_features:,}"
        table.add_row(layer.name, layer.op, shape, layer.layout or "?", size)
    return table


def print_table(table: Table) -> None:
    """Print to stdout; as wide as it needs to be where stdout is no terminal."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=160)
    console.print(table)
