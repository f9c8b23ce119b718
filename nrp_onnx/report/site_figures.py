"""Figures of the sites of a run: their receptive fields, and their errors against their reliability."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import EllipseCollection

from nrp_onnx.report.sites import sampled_sites, site_columns, site_errors
from nrp_onnx.report.style import DENSITY, HEAD, MUTED, NamedFigure, panel, set_title
from nrp_onnx.report.words import error_units, is_simulated, predictor_name, wrapped
from nrp_onnx.scoring.run import FinishedRun

NO_FIELDS = "Receptive fields are not drawn: sites.csv of this run has no columns rf_x and rf_y."
NO_FIELD = "Receptive fields are not drawn: no site of this run has one."
NO_RELIABILITY = (
    "Error against reliability is not drawn: no site has a reliability, which takes repetitions."
)


def fields_figure(run: FinishedRun, region: str) -> NamedFigure | None:
    """The receptive fields of the sites of a region on the image; None where no site has one."""
    columns, sampled = _of_region(run, region)
    if not np.isfinite(columns.get("rf_x", np.array([]))).any():
        return None
    n = int(np.isfinite(columns["rf_x"]).sum())
    with panel(4.0, simulated=is_simulated(run)) as axes:
        draw_fields(axes, columns)
        set_title(axes, f"{region}: receptive fields of {n} of {len(columns['rf_x'])} sites")
    return NamedFigure(
        f"fields-{region}",
        f"Receptive fields of the sites of {region} on the image: a dot at the centre, a circle of one "
        "sigma. The stronger the colour, the more reliable the site; grey: its reliability is not known."
        + sampled,
        axes.figure,  # type: ignore[arg-type]
    )


def reliability_figure(run: FinishedRun, region: str) -> NamedFigure | None:
    """The error of each site of a region against its reliability; None where no site has one."""
    columns, sampled = _of_region(run, region)
    reliability = columns.get("reliability", np.array([]))
    if not np.isfinite(reliability).any():
        return None
    errors = site_errors(run, run.headline)[sampled_sites(run, region)[0]]
    with panel(4.0, simulated=is_simulated(run)) as axes:
        draw_reliability(axes, reliability, errors)
        axes.set_ylabel(
            wrapped(f"error with the {predictor_name(run.headline)} ({error_units(run)})")
        )
        set_title(axes, f"{region}: error against reliability")
    return NamedFigure(
        f"reliability-{region}",
        f"Mean absolute error of each site of {region} against its split-half reliability. What a site "
        "repeats less well cannot be predicted as well." + sampled,
        axes.figure,  # type: ignore[arg-type]
    )


def missing_site_figures(run: FinishedRun) -> list[str]:
    """Why figures of sites are not there, in sentences."""
    columns = site_columns(run)
    missing = []
    if "rf_x" not in columns:
        missing.append(NO_FIELDS)
    elif not np.isfinite(columns["rf_x"]).any():
        missing.append(NO_FIELD)
    if not np.isfinite(columns.get("reliability", np.array([]))).any():
        missing.append(NO_RELIABILITY)
    return missing


def draw_fields(axes: Axes, columns: Mapping[str, np.ndarray]) -> None:
    """Draw receptive fields on an image of unit sides, its origin at the top left.

    Args:
        columns: ``rf_x``, ``rf_y``, ``rf_width`` (sigma) as shares of the image, NaN = none; and
            ``reliability``, NaN = not known: float64 (n_sites,).
    """
    there = np.isfinite(columns["rf_x"]) & np.isfinite(columns["rf_y"])
    x, y = columns["rf_x"][there], columns["rf_y"][there]
    sides = 2 * np.nan_to_num(columns.get("rf_width", np.full(len(there), np.nan))[there])
    reliability = columns.get("reliability", np.full(len(there), np.nan))[there]
    known = np.isfinite(reliability)
    colours: list[Any] = [
        DENSITY(float(np.clip(value, 0, 1))) if there_is else MUTED
        for value, there_is in zip(reliability, known, strict=True)
    ]
    axes.add_collection(
        EllipseCollection(
            sides, sides, np.zeros(len(x)), units="xy", offsets=np.column_stack([x, y]),
            offset_transform=axes.transData, facecolors="none", edgecolors=colours, linewidths=0.7,
        )
    )  # fmt: skip
    axes.scatter(x, y, s=9, c=colours, linewidths=0, zorder=3)
    axes.set(xlim=(0, 1), ylim=(1, 0), aspect="equal")
    axes.set_xlabel("share of the image's width, from the left")
    axes.set_ylabel("of its height, from the top")


def draw_reliability(axes: Axes, reliability: np.ndarray, errors: np.ndarray) -> None:
    """Draw a point a site.

    Args:
        reliability: split-half, float64 (n_sites,); NaN = not known, which leaves the site out.
        errors: mean absolute error of each, in units of the score, float64 (n_sites,).
    """
    axes.plot(
        reliability, errors, "o", color=HEAD, alpha=0.6, markersize=4.5, markeredgewidth=0
    )  # fmt: skip
    axes.set_xlabel("split-half reliability")


def _of_region(run: FinishedRun, region: str) -> tuple[dict[str, np.ndarray], str]:
    """The columns of the sites that are shown, and what to say of these."""
    sites, sampled = sampled_sites(run, region)
    return {name: values[sites] for name, values in site_columns(run).items()}, sampled
