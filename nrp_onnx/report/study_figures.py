"""What the figures of all studies share: their files, their panels, the labels of their axes."""

import textwrap
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from matplotlib.axis import Axis

from nrp_onnx.report.style import NamedFigure, panels, write_figure

#: Of a panel, in inches.
PANEL_WIDTH, PANEL_HEIGHT = 4.2, 3.8
#: Legible at half the size.
_POINTS = 11
_LONGEST_LINE = 52
study_panels = partial(panels, points=_POINTS)


def save_study_figure(named: NamedFigure, folder: Path) -> None:
    """Write NAME.svg, .pdf and .png."""
    write_figure(named.figure, folder / named.name, ("svg", "pdf", "png"))


def label_errors(axis: Axis, units: str, what: str = "NRP-error") -> None:
    """Label an axis of errors, with their units, in lines of a panel's width."""
    spelt = "s.d. of each site's rates" if units == "z" else units
    axis.set_label_text(textwrap.fill(f"{what} (MAE) in {spelt}", _LONGEST_LINE), fontsize="small")


def whiskers(values: Sequence[float], intervals: Sequence[Sequence[float]]) -> list[list[float]]:
    """Intervals as `matplotlib.axes.Axes.errorbar` takes them: their lengths down and up, (2, n)."""
    pairs = list(zip(values, intervals, strict=True))
    down = [max(value - low, 0.0) for value, (low, _) in pairs]
    return [down, [max(high - value, 0.0) for value, (_, high) in pairs]]
