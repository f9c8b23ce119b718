"""Figures of the score: the errors of all predictors, and the head less each of them."""

from typing import Any

from matplotlib.axes import Axes

from nrp_onnx.report.predictor_names import predictor_name
from nrp_onnx.report.run_words import error_units, is_simulated
from nrp_onnx.report.style import BASELINE, FLOOR, HEAD, MUTED, NamedFigure, panel, set_title
from nrp_onnx.scoring.finished_run import FinishedRun


def error_figure(run: FinishedRun, region: str) -> NamedFigure:
    """The mean absolute error of every predictor, with its interval and the noise floor."""
    found = run.result["regions"][region]
    names = list(found["predictors"])
    with panel(0.95 + 0.3 * len(names), simulated=is_simulated(run)) as axes:
        for row, name in enumerate(names):
            numbers = found["predictors"][name]
            _interval(axes, row, numbers["mae"], numbers["mae_ci95"], _colour(name))
        _rows(axes, names)
        floor = found["noise_floor"]
        if floor is not None:
            axes.axvline(floor, color=FLOOR, linewidth=1.5)
            axes.annotate(
                "noise floor", (floor, 1), (3, 2), xycoords=("data", "axes fraction"),
                textcoords="offset points", color=FLOOR, fontsize=8, va="bottom",
            )  # fmt: skip
        axes.set_xlabel(f"mean absolute error ({error_units(run)})")
        set_title(axes, f"{region}, {found['n_sites']} sites")
    floor_words = "" if floor is None else "; the line is the error of a perfect predictor"
    return NamedFigure(
        f"errors-{region}",
        f"Error of each predictor on held-out images of {region}, with 95 % intervals over images "
        f"and sites{floor_words}. Further left is better.",
        axes.figure,  # type: ignore[arg-type]
    )


def difference_figure(run: FinishedRun, region: str) -> NamedFigure | None:
    """The head's error less that of each baseline; None if the run has no paired comparisons."""
    comparisons: dict[str, Any] = run.result["regions"][region].get("comparisons") or {}
    if not comparisons:
        return None
    names = list(comparisons)
    with panel(0.95 + 0.3 * len(names), simulated=is_simulated(run)) as axes:
        axes.axvline(0, color=MUTED, linewidth=1.2)
        for row, name in enumerate(names):
            paired = comparisons[name]
            _interval(axes, row, paired["difference"], paired["ci95"], HEAD)
        _rows(axes, names)
        axes.set_xlabel(f"head's error less baseline's ({error_units(run)})")
        set_title(axes, f"{region}: NRP head against each baseline")
        axes.text(0.0, 1.01, "◂ head errs less", transform=axes.transAxes, fontsize=8, color=MUTED)
        axes.text(1.0, 1.01, "head errs more ▸", transform=axes.transAxes, fontsize=8, color=MUTED, ha="right")  # fmt: skip
    return NamedFigure(
        f"differences-{region}",
        f"Error of the NRP head less that of each baseline, paired on the same images and sites of "
        f"{region}, with 95 % intervals. Where an interval holds 0, neither is shown to be better.",
        axes.figure,  # type: ignore[arg-type]
    )


def _interval(axes: Axes, row: int, value: float, interval: list[float], colour: str) -> None:
    axes.plot(interval, [row, row], color=colour, linewidth=2.2, solid_capstyle="round")
    axes.plot(value, row, "o", color=colour, markersize=6)


def _rows(axes: Axes, names: list[str]) -> None:
    axes.set_yticks(range(len(names)), [predictor_name(name) for name in names])
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.locator_params(axis="x", nbins=6)


def _colour(name: str) -> str:
    return {"nrp": HEAD, "mean": MUTED}.get(name, BASELINE)
