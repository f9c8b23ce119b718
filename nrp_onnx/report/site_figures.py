"""Figures of predicted against measured rates, of all sites together and of one."""

import numpy as np

from nrp_onnx.report.predictor_names import best_baseline, predictor_name
from nrp_onnx.report.run_words import error_units, is_simulated
from nrp_onnx.report.site_scores import site_errors
from nrp_onnx.report.style import BASELINE, DENSITY, HEAD, MUTED, NamedFigure, panel, set_title
from nrp_onnx.scoring.finished_run import FinishedRun

#: Left, bottom, right and top of the axes in a site's small figure, as parts of it.
_CARD_MARGINS = (0.25, 0.2, 0.96, 0.96)


def density_figure(run: FinishedRun, region: str) -> NamedFigure:
    """Predicted against measured rates of all images and sites of a region, as a density."""
    sites = run.sites_of(region)
    measured, predicted = (
        (rates[:, sites] - _centre(run, sites)) / run.scale[:, sites]
        for rates in (run.recorded, run.predicted["nrp"])
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
        f"Rates that the NRP head predicts for held-out images, against the measured ones, of all "
        f"{len(sites)} sites of {region}. Dashed: a perfect prediction. Predictions reach less far "
        "than measurements where noise cannot be predicted.",
        axes.figure,  # type: ignore[arg-type]
    )


def sites_figure(run: FinishedRun, region: str) -> NamedFigure | None:
    """The error of each site with the head against that with the best baseline."""
    best = best_baseline(run.result["regions"][region]["predictors"])
    if best is None:
        return None
    sites = run.sites_of(region)
    x, y = (site_errors(run, name)[sites] for name in (best, "nrp"))
    wins, n = int((y < x).sum()), int((~np.isnan(x)).sum())
    both = np.concatenate([x, y])
    low, high = np.nanmin(both), np.nanmax(both)
    low, high = low - 0.05 * (high - low), high + 0.05 * (high - low)
    with panel(4.0, simulated=is_simulated(run)) as axes:
        axes.plot([low, high], [low, high], color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
        axes.plot(x, y, "o", color=HEAD, alpha=0.6, markersize=4.5, markeredgewidth=0)
        axes.set(xlim=(low, high), ylim=(low, high), aspect="equal")
        axes.set_xlabel(f"error with {predictor_name(best)} ({error_units(run)})", color=BASELINE)
        axes.set_ylabel(f"error with the NRP head ({error_units(run)})", color=HEAD)
        set_title(axes, f"{region}: the head errs less at {wins} of {n} sites")
    return NamedFigure(
        f"sites-{region}",
        f"Mean absolute error of each site of {region} with the NRP head, against that with "
        f"{predictor_name(best)}, the best of the baselines here. Below the dashed line the head "
        "errs less.",
        axes.figure,  # type: ignore[arg-type]
    )


def site_figure(run: FinishedRun, place: int) -> NamedFigure:
    """Predicted against measured rates of one site, a point an image."""
    measured = run.recorded[:, place]
    predicted = run.predicted["nrp"][:, place]
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
