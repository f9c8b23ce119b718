"""Results as tables for a terminal."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from nrp_onnx.backbone.layers import Layer
from nrp_onnx.bootstrap import N_RESAMPLES
from nrp_onnx.report.words import (
    NOT_BETWEEN_RECORDINGS,
    base_predictors,
    of_calibrated,
    predictor_name,
    uncalibrated,
)
from nrp_onnx.scoring.result import Protocol, RegionScore, Result
from nrp_onnx.statistics import Interval

if TYPE_CHECKING:
    from nrp_onnx.activations.classes import Photograph
    from nrp_onnx.export.scorer import ScorerResult


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _held_out(protocol: Protocol) -> str:
    if protocol.name == "paper":
        return "a single held-out fifth of the images"
    if protocol.split is not None:
        return f"the {protocol.split.n_test:,} test images of the split {protocol.split.name}"
    return f"{protocol.folds}-fold, held-out images"


def difference_with_interval(difference: float, ci95: Interval) -> str:
    """A paired difference as ``-0.012 [-0.015, -0.009]``."""
    low, high = ci95
    return f"{difference:+.3f} [{low:+.3f}, {high:+.3f}]"


def score_table(result: Result) -> Table:
    """Every predictor of every region, and the headline less each; SIMULATED where it is.

    A predictor that was also calibrated has that error beside its own.
    """
    recordings = result.recordings
    simulated = "  SIMULATED" if recordings.simulated else ""
    weights = (result.model.source or {}).get("weights")
    untrained = " (weights none: random)" if weights == "none" else ""
    every = {name for found in result.regions.values() for name in found.predictors}
    some_calibrated = any(name != uncalibrated(name) for name in every)
    own = predictor_name(result.headline)
    table = Table(
        title=f"{result.model.file}{untrained} on {recordings.name}{simulated}\n"
        f"NRP-error {_number(result.nrp_error)} {result.units}, that of: {own}",
        caption=f"MAE in {result.units}; {_held_out(result.protocol)}; intervals: "
        f"{result.protocol.interval}; explained: of the error over the noise floor, the share that is "
        f"removed ({NOT_BETWEEN_RECORDINGS}); r, r2/rel (r2 / reliability): median over sites; less it: "
        f"MAE of {own} less that of the row; Brain-Score: of splits of its own",
    )
    for heading in ("region", "predictor"):
        table.add_column(heading)
    headings = ["MAE", "95 %", *(["calibrated"] if some_calibrated else []), "MSE", "explained"]
    headings += ["r", "r2/rel", "less it", "better at"]
    for heading in headings:
        table.add_column(heading, justify="right")
    for region, found in result.regions.items():
        for place, (name, numbers) in enumerate(base_predictors(found.predictors).items()):
            low, high = numbers.mae_ci95
            removed = numbers.explainable_removed
            paired = found.comparisons.get(name)
            also = of_calibrated(found.predictors, name)
            table.add_row(
                f"{region} ({found.n_sites} sites)" if place == 0 else "",
                predictor_name(name),
                _number(numbers.mae),
                f"{low:.3f} to {high:.3f}",
                *([_number(also.mae if also else None)] if some_calibrated else []),
                _number(numbers.mse),
                "-" if removed is None else f"{removed:.1%}",
                _number(numbers.pearson_r),
                _number(numbers.r2_normalised),
                difference_with_interval(paired.difference, paired.ci95) if paired else "",
                f"{paired.wins} of {paired.n_sites}" if paired else "",
                style="bold" if uncalibrated(name) == uncalibrated(result.headline) else None,
            )
        _add_limits(table, found, some_calibrated)
        _add_ood(table, result, found, some_calibrated)
        table.add_section()
    table.add_row("all", "NRP-error", _number(result.nrp_error), style="bold")
    return table


def _add_limits(table: Table, found: RegionScore, some_calibrated: bool) -> None:
    """What trial noise leaves to reach, and Brain-Score, as rows of `score_table`."""
    between = [""] * (4 if some_calibrated else 3)  # MAE and r
    reliability, brainscore = found.reliability, found.brainscore
    ceiling = reliability**0.5 if reliability is not None and reliability > 0 else None
    floor = _number(found.noise_floor)
    table.add_row("", "noise floor, ceiling", floor, *between, _number(ceiling), style="dim")
    if brainscore is not None:
        score = f"Brain-Score {_number(brainscore.score)}"
        table.add_row("", score, "", *between, _number(brainscore.r), style="dim")


def _add_ood(table: Table, result: Result, found: RegionScore, some_calibrated: bool) -> None:
    """The headline predictor on the images that are out of distribution, and its drop."""
    ood = (found.ood or {}).get(result.headline)
    if ood is None:
        return
    low, high = ood.mae_ci95
    table.add_row(
        "",
        "out of distribution",
        _number(ood.mae),
        f"{low:.3f} to {high:.3f}",
        *([""] if some_calibrated else []),
        _number(ood.mse),
        "",
        _number(ood.pearson_r),
        "",
        difference_with_interval(ood.drop, ood.drop_ci95),
        "less the test",
    )


def scorer_table(result: "ScorerResult") -> Table:
    """The NRP-error of each region by an exported scorer; SIMULATED where it is."""
    simulated = "  SIMULATED" if result.simulated else ""
    title = _plain(f"{result.scorer} on {result.recordings}{simulated}")
    title.append(f"\nNRP-error {_number(result.nrp_error)} {result.units}")
    table = Table(
        title=title,
        caption=f"in {result.units}; {result.n_images:,} images, nothing is trained; intervals: 95 %, "
        f"bootstrap over images and sites, {N_RESAMPLES} resamples",
    )
    table.add_column("region")
    for heading in ("NRP-error", "95 %", "sites", "responses"):
        table.add_column(heading, justify="right")
    for name, found in result.regions.items():
        low, high = found.ci95
        interval = f"{low:.3f} to {high:.3f}"
        n_sites, n_recorded = f"{found.n_sites:,}", f"{found.n_recorded:,}"
        table.add_row(_plain(name), _number(found.nrp_error), interval, n_sites, n_recorded)
    return table


def layers_table(layers: list[Layer]) -> Table:
    """The layers of a backbone, with what an image costs in each (float32).

    Names are shown whole, over several lines where the terminal is narrow.
    """
    table = Table()
    table.add_column("number", justify="right")
    table.add_column("layer", overflow="fold")
    for heading in ("op", "shape", "layout"):
        table.add_column(heading)
    table.add_column("bytes an image", justify="right")
    for number, layer in enumerate(layers):
        shape = "?" if layer.shape is None else " x ".join(map(str, layer.shape))
        size = "?" if layer.n_features is None else f"{4 * layer.n_features:,}"
        name, op = _plain(layer.name), _plain(layer.op)
        table.add_row(str(number), name, op, shape, layer.layout or "?", size)
    return table


def classes_table(photographs: "Sequence[Photograph]") -> Table:
    """The likeliest classes of photographs, a row each."""
    table = Table()
    for heading in ("photograph", "class", "label"):
        table.add_column(heading, overflow="fold")
    table.add_column("probability", justify="right")
    for photograph in photographs:
        for place, seen in enumerate(photograph.classes):
            table.add_row(
                _plain(photograph.file if place == 0 else ""),
                str(seen.number),
                _plain(seen.label or "-"),
                f"{seen.probability:.3f}",
            )
        table.add_section()
    return table


def _plain(text: str) -> Text:
    """Text of a file as a cell: no markup, and control characters escaped."""
    shown = (c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return Text("".join(shown))


def print_table(table: Table) -> None:
    """Print to stdout; as wide as it needs to be where stdout is no terminal."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=160)
    console.print(table)
