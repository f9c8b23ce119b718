"""Figure 3B: NRP-error over the share of weights that are zero, each region a panel."""

from collections.abc import Mapping
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import PercentFormatter

from nrp_onnx.report.study_figures import (
    PANEL_HEIGHT,
    PANEL_WIDTH,
    label_errors,
    study_panels,
    whiskers,
)
from nrp_onnx.report.style import BASELINE, FLOOR, HEAD, INK, MUTED, NamedFigure

_KINDS = {
    "magnitude": ("weights of least magnitude", HEAD, "o-"),
    "random": ("random weights", BASELINE, "s--"),
    "fine-tuned": ("fine-tuned", FLOOR, "D"),
}
#: Curves stand so far apart along the axis of sparsity that their intervals can be told apart.
_APART = {"magnitude": -0.004, "random": 0.004, "fine-tuned": 0.0}
_MEAN = "mean over regions"


def pruning_figure(study: Mapping[str, Any]) -> NamedFigure:
    """Above the NRP-error, below its paired difference from the unpruned model.

    Args:
        study: the content of pruning.json, with the unpruned model.
    """
    names = list(study["models"][0]["regions"])
    shown = [*names, _MEAN] if len(names) > 1 else names
    width, height = PANEL_WIDTH * len(shown), 2 * PANEL_HEIGHT
    with study_panels(
        2, len(shown), height, width, simulated=study["recordings"]["simulated"], sharex=True
    ) as axes:
        for column, name in enumerate(shown):
            _errors(axes[0, column], study, name)
            _differences(axes[1, column], study, name)
            axes[0, column].set_title(name)
            axes[1, column].set_xlabel("weights that are zero (%)")
            axes[1, column].xaxis.set_major_formatter(PercentFormatter(1.0, symbol=""))
        label_errors(axes[0, 0].yaxis, study["units"])
        axes[1, 0].set_ylabel("difference from unpruned\n(paired)")
        handles, labels = axes[0, 0].get_legend_handles_labels()
        axes[0, 0].figure.legend(handles, labels, loc="outside upper left", ncols=len(labels))
    return NamedFigure(
        "figure_3b",
        "NRP-error over the share of weights that are zero, and its paired difference from the "
        "unpruned model, with 95 % intervals over images and sites.",
        axes[0, 0].figure,
    )


def _errors(axes: Axes, study: Mapping[str, Any], name: str) -> None:
    for record in study["models"]:
        if record["kind"] == "unpruned":
            axes.axhline(_of(record, name)["nrp_error"], color=INK, linewidth=0.8, linestyle=":")
    for kind, (label, colour, style) in _KINDS.items():
        points = _points(study, kind)
        if not any(record["kind"] == kind for record in points):
            continue
        found = [(record["sparsity"] + _APART[kind], _of(record, name)) for record in points]
        _curve(axes, [(x, of["nrp_error"], of["ci95"]) for x, of in found], label, colour, style)


def _differences(axes: Axes, study: Mapping[str, Any], name: str) -> None:
    axes.axhline(0, color=MUTED, linewidth=0.8)
    for kind, (label, colour, style) in _KINDS.items():
        found = [
            (record["sparsity"] + _APART[kind], _of(record["from_unpruned"], name))
            for record in _points(study, kind)
            if record["kind"] == kind
        ]
        if found:
            points = [(x, of["difference"], of["ci95"]) for x, of in found]
            _curve(axes, points, label, colour, style)


def _points(study: Mapping[str, Any], kind: str) -> list[dict[str, Any]]:
    """The models of a curve by sparsity; curves of pruning begin with the unpruned model."""
    kinds = (kind,) if kind == "fine-tuned" else ("unpruned", kind)
    chosen = [record for record in study["models"] if record["kind"] in kinds]
    return sorted(chosen, key=lambda record: float(record["sparsity"]))


def _of(record: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found: Mapping[str, Any] = record if name == _MEAN else record["regions"][name]
    return found


def _curve(
    axes: Axes, points: list[tuple[float, float, list[float]]], label: str, colour: str, style: str
) -> None:
    xs, ys = [x for x, _, _ in points], [y for _, y, _ in points]
    axes.errorbar(
        xs, ys, yerr=whiskers(ys, [interval for _, _, interval in points]), fmt=style, color=colour, label=label, capsize=2.5, markersize=5,
        linewidth=1.4, elinewidth=0.9,
    )  # fmt: skip
