"""What the figures of all studies share: their files, their panels, the labels of their axes."""

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axis import Axis
from matplotlib.figure import Figure

from nrp_onnx.files import whole_file
from nrp_onnx.report.style import MUTED, NamedFigure, styled

#: Of a panel, in inches.
PANEL_WIDTH, PANEL_HEIGHT = 4.2, 3.8
#: Legible at half the size.
_POINTS = 11
_LONGEST_LINE = 52
_ENDINGS = {"svg": {"Date": None}, "pdf": {"CreationDate": None}, "png": None}
_DPI = 200


@contextmanager
def study_panels(
    rows: int, columns: int, height: float, width: float, *, simulated: bool, **options: Any
) -> Iterator[np.ndarray]:
    """A figure of several panels in the style of the report, array of Axes (rows, columns).

    Args:
        height, width: of all, in inches.
        simulated: SIMULATED is then written across each panel.
        options: of `matplotlib.figure.Figure.subplots`.
    """
    sizes = {"font_size": _POINTS, "axes_titlesize": _POINTS + 1, "legend_fontsize": _POINTS - 1}
    with styled(axes_titlelocation="left", **sizes):
        figure = Figure(figsize=(width, height), layout="constrained")
        axes = figure.subplots(rows, columns, squeeze=False, **options)
        yield axes
        if simulated:
            size = 8.2 * min(width / columns, 1.6 * height / rows)
            for panel in axes.flat:
                panel.text(
                    0.5, 0.5, "SIMULATED", rotation=24, ha="center", va="center", color=MUTED,
                    alpha=0.25, fontsize=size, fontweight="bold", zorder=10, in_layout=False,
                    transform=panel.transAxes,
                )  # fmt: skip


def save_study_figure(named: NamedFigure, folder: Path) -> None:
    """Write NAME.svg, .pdf and .png on white, the same bytes each time."""
    for ending, metadata in _ENDINGS.items():
        with whole_file(folder / f"{named.name}.{ending}") as part, styled():
            named.figure.savefig(
                part, format=ending, dpi=_DPI, facecolor="white", metadata=metadata
            )


def label_errors(axis: Axis, units: str, what: str = "NRP-error") -> None:
    """Label an axis of errors, with their units, in lines of a panel's width."""
    spelt = "s.d. of each site's rates" if units == "z" else units
    axis.set_label_text(textwrap.fill(f"{what} (MAE) in {spelt}", _LONGEST_LINE), fontsize="small")


def whiskers(values: Sequence[float], intervals: Sequence[Sequence[float]]) -> list[list[float]]:
    """Intervals as `matplotlib.axes.Axes.errorbar` takes them: their lengths down and up, (2, n)."""
    pairs = list(zip(values, intervals, strict=True))
    down = [max(value - low, 0.0) for value, (low, _) in pairs]
    return [down, [max(high - value, 0.0) for value, (_, high) in pairs]]


def correlation_text(found: Mapping[str, Any] | None) -> str:
    """Spearman's correlation in words, nothing where there is none."""
    if found is None:
        return ""
    return f"Spearman's ρ = {found['rho']:.2f} (n = {found['n']}, p = {found['p']:.2g})"
