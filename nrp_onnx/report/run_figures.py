"""Figures of a run: errors of all predictors, and predicted against measured rates."""

import numpy as np
from matplotlib.axes import Axes

from nrp_onnx.report.sites import sampled_sites, site_errors
from nrp_onnx.report.style import (
    BASELINE,
    DENSITY,
    FLOOR,
    HEAD,
    MUTED,
    NamedFigure,
    panel,
    set_title,
)
from nrp_onnx.report.words import (
    base_predictors,
    best_baseline,
    error_units,
    is_simulated,
    of_calibrated,
    predictor_name,
    uncalibrated,
    wrapped,
)
from nrp_onnx.scoring.run import FinishedRun
from nrp_onnx.statistics import Interval


def error_figure(run: FinishedRun, region: str) -> NamedFigure:
    """The mean absolute error of every predictor, with its interval and the noise floor.

    What was also calibrated has that error below its own, as a ring.
    """
    found = run.regions[region]
    names = list(base_predictors(found.predictors))
    also = {name: of_calibrated(found.predictors, name) for name in names}
    with panel(0.95 + 0.3 * len(names), simulated=is_simulated(run)) as axes:
        for row, name in enumerate(names):
            numbers = found.predictors[name]
            colour = _colour(name, run.headline)
            _interval(axes, row, numbers.mae, numbers.mae_ci95, colour)
            if (ring := also[name]) is not None:
                _interval(axes, row + 0.26, ring.mae, ring.mae_ci95, colour, ring=True)
        _rows(axes, names)
        floor = found.noise_floor
        if floor is not None:
            axes.axvline(floor, color=FLOOR, linewidth=1.5)
            axes.annotate(
                "noise floor", (floor, 1), (3, 2), xycoords=("data", "axes fraction"),
                textcoords="offset points", color=FLOOR, fontsize=8, va="bottom",
            )  # fmt: skip
        axes.set_xlabel(f"mean absolute error ({error_units(run)})")
        set_title(axes, f"{region}, {found.n_sites} sites")
    floor_words = "; rings: calibrated" if any(also.values()) else ""
    floor_words += "" if floor is None else "; the line is the error of knowing the true rates"
    return NamedFigure(
        f"errors-{region}",
        f"Error of each predictor on held-out images of {region}, with 95 % intervals"
        f"{floor_words}. Further left is better.",
        axes.figure,  # type: ignore[arg-type]
    )


def difference_figure(run: FinishedRun, region: str) -> NamedFigure | None:
    """The headline's error less that of each other; None if the run has no paired comparisons."""
    comparisons, own = run.regions[region].comparisons, predictor_name(run.headline)
    if not comparisons:
        return None
    # A calibrated headline beside calibrated ones, and one as it is beside those as they are.
    is_calibrated = run.headline != uncalibrated(run.headline)
    names = [name for name in comparisons if (name != uncalibrated(name)) == is_calibrated]
    with panel(0.95 + 0.3 * len(names), simulated=is_simulated(run)) as axes:
        axes.axvline(0, color=MUTED, linewidth=1.2)
        for row, name in enumerate(names):
            paired = comparisons[name]
            _interval(axes, row, paired.difference, paired.ci95, HEAD)
        _rows(axes, names)
        axes.set_xlabel(wrapped(f"its error less the other's ({error_units(run)})"))
        set_title(axes, f"{region}: {own} against each other")
        axes.text(0.0, 1.01, "◂ it errs less", transform=axes.transAxes, fontsize=8, color=MUTED)
        axes.text(1.0, 1.01, "it errs more ▸", transform=axes.transAxes, fontsize=8, color=MUTED, ha="right")  # fmt: skip
    return NamedFigure(
        f"differences-{region}",
        f"Error of {own} less that of each other predictor, paired on the same images and sites of "
        f"{region}, with 95 % intervals. Where an interval holds 0, neither is shown to be better.",
        axes.figure,  # type: ignore[arg-type]
    )


def _interval(
    axes: Axes, row: float, value: float, interval: Interval, colour: str, ring: bool = False
) -> None:
    width, size, inside = (1.2, 5.0, "white") if ring else (2.2, 6.0, colour)
    axes.plot(interval, [row, row], color=colour, linewidth=width, solid_capstyle="round")
    axes.plot(value, row, "o", color=colour, markersize=size, markerfacecolor=inside)


def _rows(axes: Axes, names: list[str]) -> None:
    axes.set_yticks(range(len(names)), [predictor_name(name) for name in names])
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.locator_params(axis="x", nbins=6)


def _colour(name: str, headline: str) -> str:
    return {uncalibrated(headline): HEAD, "mean": MUTED}.get(uncalibrated(name), BASELINE)


#: Left, bottom, right and top of the axes in a site's small figure, as parts of it.
_CARD_MARGINS = (0.25, 0.2, 0.96, 0.96)


def density_figure(run: FinishedRun, region: str) -> NamedFigure:
    """Predicted against measured rates of all images and sites of a region, as a density."""
    sites = run.sites_of(region)
    measured, predicted = (
        (rates[:, sites] - _centre(run, sites)) / run.scale[:, sites]
        for rates in (run.recorded, run.predictions[run.headline])
    )
    there = ~np.isnan(measured)
    low, high = np.quantile(measured[there], [0.002, 0.998])
    with panel(4.0, simulated=is_simulated(run)) as axes:
        cells = axes.hexbin(
            measured[there], predicted[there], gridsize=34, extent=(low, high, low, high),
            bins="log", cmap=DENSITY, mincnt=1, linewidths=0,
        )  # fmt: skip
        axes.plot([low, high], [low, high], color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
        axes.set(xlim=(low, high), ylim=(low, high), aspect="equal")
        axes.set_xlabel(f"measured, less the site's mean ({error_units(run)})")
        axes.set_ylabel("predicted, less the site's mean")
        set_title(axes, f"{region}: predicted against measured")
        bar = axes.figure.colorbar(cells, ax=axes, shrink=0.7, pad=0.02, format="{x:g}")
        bar.set_label("responses in a cell")
        bar.outline.set_visible(False)
    return NamedFigure(
        f"responses-{region}",
        f"Rates that {predictor_name(run.headline)} predicts for held-out images, against the measured ones, of all "
        f"{len(sites)} sites of {region}. Dashed: a perfect prediction. Predictions reach less far "
        "than measurements where noise cannot be predicted.",
        axes.figure,  # type: ignore[arg-type]
    )


def sites_figure(run: FinishedRun, region: str) -> NamedFigure | None:
    """The error of each site with the headline against that with the best baseline."""
    best, own = (
        best_baseline(run.regions[region].predictors, run.headline),
        predictor_name(run.headline),
    )
    if best is None:
        return None
    sites = run.sites_of(region)
    x, y = (site_errors(run, name)[sites] for name in (best, run.headline))
    wins, n = int((y < x).sum()), int((~np.isnan(x)).sum())
    shown, sampled = sampled_sites(run, region)
    seen = np.isin(sites, shown)
    both = np.concatenate([x, y])
    low, high = np.nanmin(both), np.nanmax(both)
    low, high = low - 0.05 * (high - low), high + 0.05 * (high - low)
    with panel(4.0, simulated=is_simulated(run)) as axes:
        axes.plot([low, high], [low, high], color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
        axes.plot(x[seen], y[seen], "o", color=HEAD, alpha=0.6, markersize=4.5, markeredgewidth=0)
        axes.set(xlim=(low, high), ylim=(low, high), aspect="equal")
        other = f"error with {predictor_name(best)} ({error_units(run)})"
        axes.set_xlabel(wrapped(other), color=BASELINE)
        axes.set_ylabel(wrapped(f"error with {own} ({error_units(run)})"), color=HEAD)
        set_title(axes, f"{region}: less error at {wins} of {n} sites")
    return NamedFigure(
        f"sites-{region}",
        f"Mean absolute error of each site of {region} with {own}, against that with "
        f"{predictor_name(best)}, the best of the baselines here. Below the dashed line "
        f"{own} errs less.{sampled}",
        axes.figure,  # type: ignore[arg-type]
    )


def site_figure(run: FinishedRun, place: int) -> NamedFigure:
    """Predicted against measured rates of one site, a point an image."""
    measured = run.recorded[:, place]
    predicted = run.predictions[run.headline][:, place]
    low, high = np.nanmin(measured), np.nanmax(measured)
    low, high = low - 0.04 * (high - low), high + 0.04 * (high - low)
    if low == high:
        low, high = low - 1, high + 1
    with panel(2.3, width=2.3, margins=_CARD_MARGINS, simulated=is_simulated(run)) as axes:
        axes.plot([low, high], [low, high], color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
        # As pixels: thousands of points weigh more as shapes, and the page holds a dozen of these.
        axes.plot(
            measured, predicted, "o", color=HEAD, alpha=0.4, markersize=2.6, markeredgewidth=0,
            rasterized=True,
        )  # fmt: skip
        axes.set(xlim=(low, high), ylim=(low, high), aspect="equal")
        axes.set_xlabel("measured")
        axes.set_ylabel("predicted")
        axes.locator_params(nbins=5)
    name = run.site_ids[place]
    return NamedFigure(
        f"site-{place}-{name}",
        f"Site {name}: predicted against measured rate of each held-out image.",
        axes.figure,  # type: ignore[arg-type]
    )


def _centre(run: FinishedRun, sites: np.ndarray) -> np.ndarray:
    """The mean measured rate of each site; NaN for one that was never recorded."""
    with np.errstate(invalid="ignore"):
        counts = (~np.isnan(run.recorded[:, sites])).sum(axis=0)
        centre: np.ndarray = np.nansum(run.recorded[:, sites], axis=0) / counts
    return centre
