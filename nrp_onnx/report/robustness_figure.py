"""The figure of the study of robustness: NRP-error against the sensitivity to changes of images."""

from collections.abc import Mapping
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from nrp_onnx.report.point_labels import crosses, label_points
from nrp_onnx.report.robustness_changes import Change, changes_of, measured
from nrp_onnx.report.study_figures import (
    PANEL_HEIGHT,
    PANEL_WIDTH,
    correlation_text,
    label_errors,
    study_panels,
    whiskers,
)
from nrp_onnx.report.style import HEAD, NamedFigure

_WIDTH, _HEIGHT = 1.3 * PANEL_WIDTH, 1.2 * PANEL_HEIGHT
_MARGIN = 0.12
#: Small sensitivities have long numbers.
_TICKS = 5


def robustness_figure(study: Mapping[str, Any]) -> NamedFigure:
    """A panel a level of noise, and of FGSM for the models that have it, two side by side.

    Args:
        study: the content of robustness.json.
    """
    changes = [change for change in changes_of(study) if measured(study, change)]
    columns = min(2, len(changes))
    rows = -(-len(changes) // columns)
    simulated = study["recordings"]["simulated"]
    with study_panels(rows, columns, _HEIGHT * rows, _WIDTH * columns, simulated=simulated) as axes:
        for panel, change in zip(axes.flat, changes, strict=False):
            _points(panel, study, change)
        for panel in axes.flat[len(changes) :]:
            panel.set_visible(False)
        # Names are placed when all panels have their size.
        for panel, change in zip(axes.flat, changes, strict=False):
            _names(panel, study, change)
    return NamedFigure(
        "robustness",
        "NRP-error, mean over regions, against the sensitivity to changes of images, mean over the "
        "scored layers, with 95 % intervals; a panel a level.",
        axes[0, 0].figure,
    )


def _points(panel: Axes, study: Mapping[str, Any], change: Change) -> None:
    xs, ys, across, up = _values(study, change)
    panel.errorbar(
        xs, ys, xerr=whiskers(xs, across), yerr=whiskers(ys, up), fmt="o", color=HEAD,
        ecolor=(HEAD, 0.5), capsize=2, markersize=6, elinewidth=0.8,
    )  # fmt: skip
    panel.margins(_MARGIN)
    panel.xaxis.set_major_locator(MaxNLocator(_TICKS))
    panel.set_xlabel("sensitivity: distance moved / distance between images", fontsize="small")
    label_errors(panel.yaxis, study["units"])
    correlation = correlation_text(change.correlation)
    title = f"{change.name} of 255 grey levels"
    panel.set_title("\n".join([title, correlation]) if correlation else title)


def _names(panel: Axes, study: Mapping[str, Any], change: Change) -> None:
    xs, ys, across, up = _values(study, change)
    names = [str(record["model"]) for record in measured(study, change)]
    label_points(panel, list(zip(xs, ys, names, strict=True)), crosses(xs, ys, across, up))


def _values(
    study: Mapping[str, Any], change: Change
) -> tuple[list[float], list[float], list[list[float]], list[list[float]]]:
    """Sensitivities, NRP-errors, and the intervals of both."""
    models = measured(study, change)
    found = [record[change.key][change.level] for record in models]
    xs, across = [of["value"] for of in found], [of["ci95"] for of in found]
    return xs, [of["nrp_error"] for of in models], across, [of["ci95"] for of in models]
