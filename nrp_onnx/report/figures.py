"""What the figures of studies share: files, labels of points, axes."""

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure

from nrp_onnx.files import whole_file
from nrp_onnx.report.style import MUTED, NamedFigure, styled

Bar = tuple[tuple[float, float], tuple[float, float]]

#: Where a name is tried: so far from its point, in points of typography, in so many directions.
_DISTANCES = (6.0, 10.0, 16.0, 24.0, 34.0, 46.0, 60.0, 76.0)
_DIRECTIONS = 24
#: A name this far from its point is joined to it by a line.
_LINE_FROM = 12.0
_MARKER, _BAR, _GAP = 5.0, 1.0, 1.5
_SWEEPS = 4
#: Costs of a place, beside its distance: of each bar that is covered; of each name or point, or of
#: leaving the panel.
_COVERS_BAR, _COVERS_NAME = 60.0, 1000.0


def label_points(
    axes: Axes, points: Sequence[tuple[float, float, str]], bars: Sequence[Bar] = ()
) -> None:
    """Write names beside points (x, y, name), clear of each other, of the points and of bars.

    Places around each point are tried, near ones first; names are moved in turn until none finds a
    better place. To be called when limits and all else of the panel are set.

    Args:
        bars: lines along an axis (from, to), each (x, y), such as intervals.
    """
    figure = axes.get_figure(root=True)
    assert figure is not None
    figure.draw_without_rendering()  # the layout decides where points are
    scale = figure.dpi / 72
    texts = [
        axes.annotate(
            name, (x, y), ha="center", va="center", fontsize="small", zorder=6, xytext=(0, 0),
            textcoords="offset points",
        )
        for x, y, name in points
    ]  # fmt: skip
    sizes = [text.get_window_extent() for text in texts]
    size = np.array([[box.width, box.height] for box in sizes]) / scale + 2 * _GAP
    place = axes.transData.transform([(x, y) for x, y, _ in points]) / scale
    inside = axes.get_window_extent()
    frame = np.array([inside.x0, inside.y0, inside.x1, inside.y1]) / scale
    obstacles = _boxes(place, np.full((len(place), 2), _MARKER * 2))
    lines = _bar_boxes(axes, bars, scale)
    offsets = [_offsets(of) for of in size]
    chosen = [of[0] for of in offsets]
    for _ in range(_SWEEPS):
        for i, tried in enumerate(offsets):
            boxes = _boxes(place[i] + tried[:, :2], np.broadcast_to(size[i], (len(tried), 2)))
            others = [j for j in range(len(points)) if j != i]
            at = np.array([chosen[j][:2] for j in others]).reshape(-1, 2)
            names = _boxes(place[others] + at, size[others])
            left = (boxes[:, :2] < frame[:2]).any(axis=1) | (boxes[:, 2:] > frame[2:]).any(axis=1)
            cost = tried[:, 2] + _COVERS_BAR * _covered(boxes, lines)
            cost += _COVERS_NAME * (_covered(boxes, names) + _covered(boxes, obstacles) + left)
            cost += _COVERS_BAR * _crossed(place[i], tried[:, :2], obstacles[others])
            chosen[i] = tried[int(np.argmin(cost))]
    for text, (x, y, distance), of in zip(texts, chosen, size, strict=True):
        text.set_position((float(x), float(y)))
        if distance > _LINE_FROM:
            near = (float(np.clip(0, x - of[0] / 2, x + of[0] / 2)),
                    float(np.clip(0, y - of[1] / 2, y + of[1] / 2)))  # fmt: skip
            axes.annotate(
                "", text.xy, near, xycoords="data", textcoords="offset points", zorder=5,
                arrowprops={"arrowstyle": "-", "color": MUTED, "linewidth": 0.6, "shrinkA": 0,
                            "shrinkB": 3},
            )  # fmt: skip


def crosses(
    xs: list[float], ys: list[float], across: list[list[float]], up: list[list[float]]
) -> list[Bar]:
    """The intervals of points along both axes, as bars that names keep clear of."""
    bars: list[Bar] = []
    for x, y, (left, right), (low, high) in zip(xs, ys, across, up, strict=True):
        bars += [((left, y), (right, y)), ((x, low), (x, high))]
    return bars


def _offsets(size: np.ndarray) -> np.ndarray:
    """Places of a name of this size around its point: float array (n, 3) of x, y, distance."""
    angles = np.arange(_DIRECTIONS) * 2 * np.pi / _DIRECTIONS
    towards = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    return np.concatenate(
        [
            np.column_stack([towards * (distance + size / 2), np.full(_DIRECTIONS, distance)])
            for distance in _DISTANCES
        ]
    )


def _boxes(centres: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Corners (n, 4): left, bottom, right, top."""
    return np.concatenate([centres - sizes / 2, centres + sizes / 2], axis=1)


def _bar_boxes(axes: Axes, bars: Sequence[Bar], scale: float) -> np.ndarray:
    if not bars:
        return np.empty((0, 4))
    ends = axes.transData.transform(np.array(bars, float).reshape(-1, 2)).reshape(-1, 2, 2) / scale
    low, high = ends.min(axis=1) - _BAR, ends.max(axis=1) + _BAR
    return np.concatenate([low, high], axis=1)


def _crossed(point: np.ndarray, offsets: np.ndarray, obstacles: np.ndarray) -> np.ndarray:
    """How many obstacles lie between a point and each place of its name, int array (n,)."""
    steps = np.linspace(0, 1, 12)[:, None, None]
    along = point + steps * offsets
    inside = (along[:, :, None] > obstacles[:, :2]) & (along[:, :, None] < obstacles[:, 2:])
    crossed: np.ndarray = inside.all(axis=3).any(axis=0).sum(axis=1)
    return crossed


def _covered(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """How many of the others each box overlaps, int array (n,)."""
    apart = (boxes[:, None, :2] >= others[None, :, 2:]) | (
        boxes[:, None, 2:] <= others[None, :, :2]
    )
    overlaps: np.ndarray = (~apart.any(axis=2)).sum(axis=1)
    return overlaps


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
