"""The NRP-error of each layer alone over depth, with ridge and PLS beside it; a region a panel."""

from collections.abc import Mapping
from typing import Any

from matplotlib.axes import Axes

from nrp_onnx.report.predictor_names import predictor_name
from nrp_onnx.report.study_figures import PANEL_HEIGHT, label_errors, study_panels, whiskers
from nrp_onnx.report.style import BASELINE, FLOOR, HEAD, MUTED, NamedFigure

#: Key of the record, colour, line, and how far aside points stand so that intervals can be told apart.
_CURVES = (
    ("nrp", HEAD, "o-", 0.0),
    ("ridge", BASELINE, "s--", -0.12),
    ("pls", MUTED, "^:", 0.12),
)
_INCHES_A_LAYER, _LONGEST_NAME = 0.5, 28


def layers_figure(study: Mapping[str, Any]) -> NamedFigure:
    """Args: study: the content of layers.json."""
    records = study["layers"]
    regions = list(records[0]["regions"])
    width = max(5.0, 1.4 + _INCHES_A_LAYER * len(records))
    height = PANEL_HEIGHT * len(regions) + 1.0
    with study_panels(
        len(regions), 1, height, width, simulated=study["recordings"]["simulated"], sharex=True
    ) as axes:
        for row, region in enumerate(regions):
            _region(axes[row, 0], records, region)
            axes[row, 0].set_title(region)
            label_errors(axes[row, 0].yaxis, study["units"], "error")
        bottom = axes[-1, 0]
        bottom.set_xticks(
            range(len(records)), [_short(record["layer"]) for record in records], rotation=55,
            ha="right", rotation_mode="anchor",
        )  # fmt: skip
        bottom.set_xlabel("layer alone, from the image on")
        handles, labels = axes[0, 0].get_legend_handles_labels()
        bottom.figure.legend(handles, labels, loc="outside upper left", ncols=2)
    return NamedFigure(
        "layers",
        "Error of predictors that see one layer alone, with 95 % intervals over images and sites.",
        bottom.figure,
    )


def _region(axes: Axes, records: list[dict[str, Any]], region: str) -> None:
    found = [record["regions"][region] for record in records]
    for key, colour, style, aside in _CURVES:
        values = [of["nrp_error"] if key == "nrp" else of[key]["mae"] for of in found]
        intervals = [of["ci95"] if key == "nrp" else of[key]["ci95"] for of in found]
        axes.errorbar(
            [place + aside for place in range(len(found))], values,
            yerr=whiskers(values, intervals), fmt=style, color=colour, label=predictor_name(key),
            capsize=2, markersize=4.5, linewidth=1.4, elinewidth=0.8,
        )  # fmt: skip
    floor = found[0]["noise_floor"]
    if floor is not None:
        axes.axhline(floor, color=FLOOR, linewidth=1.2, linestyle="-.", label="noise floor")


def _short(name: str) -> str:
    """The end of a long name: it tells layers of one stage apart."""
    return name if len(name) <= _LONGEST_NAME else f"…{name[1 - _LONGEST_NAME :]}"
