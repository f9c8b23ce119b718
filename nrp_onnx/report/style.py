"""How figures look, on the page and on paper."""

import io
import re
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, to_rgba
from matplotlib.figure import Figure

from nrp_onnx.files import safe_name, whole_file

#: Colours by what they stand for (after Okabe & Ito 2008, who chose them to be told apart by all).
#: On the page each is a CSS variable, so that the style sheet can change it in dark mode.
INK, MUTED, RULE = "#1c1d22", "#6a6e79", "#d9dbe0"
HEAD, BASELINE, FLOOR = "#d1590f", "#2f6fae", "#11845b"
_VARIABLES = {
    INK: "ink", MUTED: "muted", RULE: "rule", HEAD: "head", BASELINE: "baseline", FLOOR: "floor",
}  # fmt: skip

#: From a little to all of the head's colour: readable on white and on black.
DENSITY = LinearSegmentedColormap.from_list("density", [to_rgba(HEAD, 0.12), to_rgba(HEAD, 1.0)])

_STYLE: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "text.color": INK,
    "axes.facecolor": "none",
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": RULE,
    "grid.linewidth": 0.6,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.major.size": 3,
    "ytick.major.size": 3,
    "legend.frameon": False,
    "legend.fontsize": 8,
    # Text stays text: it takes the font of the page, is found by a search, and is read aloud.
    "svg.fonttype": "none",
    "svg.hashsalt": "nrp_onnx",
    "pdf.fonttype": 42,
    "savefig.facecolor": "none",
}
_WIDTH_INCHES = 4.4
_DPI = 200


@dataclass(frozen=True)
class NamedFigure:
    """A figure with its file name, and what it shows in a sentence."""

    name: str
    caption: str
    figure: Figure


@contextmanager
def panel(
    height: float,
    *,
    simulated: bool,
    width: float = _WIDTH_INCHES,
    margins: tuple[float, float, float, float] | None = None,
) -> Iterator[Axes]:
    """A figure of one panel in the style of the report; its figure is ``axes.figure``.

    Args:
        height, width: in inches; 4.4 wide is legible on a telephone.
        simulated: SIMULATED is then written across it.
        margins: left, bottom, right and top of the axes; None fits them to the labels, which takes
            as long as to draw the figure.
    """
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(width, height), layout=None if margins else "constrained")
        axes = figure.add_subplot()
        if margins:
            left, bottom, right, top = margins
            figure.subplots_adjust(left, bottom, right, top)
        yield axes
        if simulated:
            figure.text(
                0.5, 0.5, "SIMULATED", rotation=24, ha="center", va="center", color=MUTED, alpha=0.25,
                fontsize=8.2 * min(width, 2.2 * height), fontweight="bold", zorder=10, in_layout=False,
            )  # fmt: skip


def set_title(axes: Axes, text: str) -> None:
    """Title a panel from the left edge of its figure, where there is most room."""
    axes.figure.suptitle(text, x=0.01, ha="left", fontsize=10)


def inline_svg(named: NamedFigure, prefix: str) -> str:
    """The figure as an SVG element for a page, with colours as CSS variables.

    Args:
        prefix: with the figure's name, unlike that of any other figure on the page.
    """
    file = io.StringIO()
    # Ids of a figure are made from the salt: no two figures of a page may share them.
    with mpl.rc_context(_STYLE | {"svg.hashsalt": f"{prefix} {named.name}"}):
        named.figure.savefig(file, format="svg", dpi=_DPI, metadata={"Date": None, "Creator": None})
    svg = file.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    width = re.search(r'width="([\d.]+)pt"', svg)
    assert width is not None
    svg = re.sub(
        r'<svg [^>]*?(viewBox="[^"]*")[^>]*>',
        rf'<svg \1 role="img" style="max-width:{float(width[1]) * 4 / 3:.0f}px" '
        'xmlns:xlink="http://www.w3.org/1999/xlink">',
        svg,
        count=1,
    )
    for colour, variable in _VARIABLES.items():
        svg = svg.replace(colour, f"var(--{variable})")
    # Ids that matplotlib counts up are the same in each figure, and nothing refers to them.
    return re.sub(r'<g id="[a-zA-Z0-9_]+">', "<g>", svg)


def save_figure(named: NamedFigure, folder: Path, prefix: str) -> None:
    """Write PREFIX-NAME.pdf and .png into ``folder``, on white."""
    for ending in ("pdf", "png"):
        with (
            whole_file(folder / f"{safe_name(f'{prefix}-{named.name}')}.{ending}") as part,
            mpl.rc_context(_STYLE),
        ):
            metadata = {"CreationDate": None} if ending == "pdf" else None
            named.figure.savefig(
                part, format=ending, dpi=_DPI, facecolor="white", metadata=metadata
            )


def styled(**changes: Any) -> AbstractContextManager[None]:
    """The style of the report, with changes, for what is drawn or written in the block.

    Args:
        changes: of matplotlib's rcParams, with ``_`` for dots.
    """
    return mpl.rc_context(_STYLE | {key.replace("_", "."): to for key, to in changes.items()})
