"""Figures 2A to 2C: NRP-error against Top-1, linear error against NRP-error, V4 against IT."""

from collections.abc import Mapping
from itertools import combinations
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import PercentFormatter

from nrp_onnx.report.figures import (
    PANEL_HEIGHT,
    PANEL_WIDTH,
    correlation_text,
    crosses,
    label_errors,
    label_points,
    study_panels,
    whiskers,
)
from nrp_onnx.report.style import BASELINE, HEAD, MUTED, NamedFigure

#: Networks with names beside them need room.
_WIDTH, _HEIGHT = 1.5 * PANEL_WIDTH, 1.3 * PANEL_HEIGHT
_MARGIN = 0.12


def table1_figures(study: Mapping[str, Any]) -> list[NamedFigure]:
    """Those that can be drawn: 2A needs Top-1 of two networks, 2C two regions.

    Args:
        study: the content of table1.json.
    """
    figures = [_against_linear(study)]
    if sum(record["paper"] is not None for record in study["models"]) > 1:
        figures.insert(0, _against_top1(study))
    regions = list(study["models"][0]["regions"])
    figures += [_region_against_region(study, *pair) for pair in combinations(regions, 2)]
    return figures


def _against_top1(study: Mapping[str, Any]) -> NamedFigure:
    records = [record for record in study["models"] if record["paper"] is not None]
    xs, ys = [of["paper"]["top1"] for of in records], [of["nrp_error"] for of in records]
    intervals = [of["ci95"] for of in records]
    with study_panels(1, 1, _HEIGHT, _WIDTH, simulated=study["recordings"]["simulated"]) as axes:
        panel = axes[0, 0]
        panel.errorbar(
            xs, ys, yerr=whiskers(ys, intervals), fmt="o", color=HEAD, capsize=3, markersize=6,
            elinewidth=1,
        )  # fmt: skip
        panel.margins(_MARGIN)
        panel.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0, symbol=""))
        panel.set_xlabel("Top-1 on ImageNet, as in the paper (%)")
        label_errors(panel.yaxis, study["units"])
        panel.set_title(
            "\n".join([*_untrained(records), correlation_text(study["rank_correlation"])])
        )
        up = [((x, low), (x, high)) for x, (low, high) in zip(xs, intervals, strict=True)]
        label_points(panel, list(zip(xs, ys, _names(records), strict=True)), up)
    return NamedFigure(
        "figure_2a",
        "NRP-error, mean over regions with its 95 % interval, against Top-1 accuracy.",
        panel.figure,
    )


def _against_linear(study: Mapping[str, Any]) -> NamedFigure:
    records = study["models"]
    regions = list(records[0]["regions"])
    width = _WIDTH * len(regions)
    with study_panels(
        1, len(regions), _HEIGHT, width, simulated=study["recordings"]["simulated"]
    ) as axes:
        for panel, region in zip(axes[0], regions, strict=True):
            found = [record["regions"][region] for record in records]
            xs = [of["nrp_error"] for of in found]
            sideways = whiskers(xs, [of["ci95"] for of in found])
            others: list[tuple[float, float]] = []
            for key, label, colour, style in (
                ("ols", "least squares (the paper's)", BASELINE, "s"),
                ("ridge", "ridge", MUTED, "^"),
            ):
                ys = [of[key]["mae"] for of in found]
                others += zip(xs, ys, strict=True)
                panel.errorbar(
                    xs, ys, xerr=sideways, yerr=whiskers(ys, [of[key]["ci95"] for of in found]),
                    fmt=style, color=colour, ecolor=(colour, 0.4), label=label, markersize=6,
                    elinewidth=0.7,
                )  # fmt: skip
            _limit(panel, xs, [y for _, y in others])
            panel.axline((xs[0], xs[0]), slope=1, color=MUTED, linewidth=0.9, linestyle=":")
            panel.set_title(region)
            label_errors(panel.xaxis, study["units"])
            ys = [of["ols"]["mae"] for of in found]
            names = list(zip(xs, ys, _names(records), strict=True))
            bars = crosses(
                xs, ys, [of["ci95"] for of in found], [of["ols"]["ci95"] for of in found]
            )
            label_points(panel, names, [*bars, *(((x, y), (x, y)) for x, y in others)])
        label_errors(axes[0, 0].yaxis, study["units"], "linear error")
        handles, labels = axes[0, 0].get_legend_handles_labels()
        axes[0, 0].figure.legend(handles, labels, loc="outside upper left", ncols=2)
    return NamedFigure(
        "figure_2b",
        "Error of linear regression on the same activations against the NRP-error, with 95 % "
        "intervals. On the dotted line both are equal; above it the headline predictor errs less.",
        axes[0, 0].figure,
    )


def _region_against_region(study: Mapping[str, Any], first: str, second: str) -> NamedFigure:
    records = study["models"]
    one, two = ([record["regions"][name] for record in records] for name in (first, second))
    xs, ys = ([of["nrp_error"] for of in found] for found in (one, two))
    with study_panels(1, 1, _HEIGHT, _WIDTH, simulated=study["recordings"]["simulated"]) as axes:
        panel = axes[0, 0]
        panel.errorbar(
            xs, ys, xerr=whiskers(xs, [of["ci95"] for of in one]),
            yerr=whiskers(ys, [of["ci95"] for of in two]), fmt="o", color=HEAD, ecolor=(HEAD, 0.5), markersize=6,
            elinewidth=0.6, capsize=2,
        )  # fmt: skip
        panel.margins(_MARGIN)
        label_errors(panel.xaxis, study["units"], f"{first}: NRP-error")
        label_errors(panel.yaxis, study["units"], f"{second}: NRP-error")
        bars = crosses(xs, ys, [of["ci95"] for of in one], [of["ci95"] for of in two])
        label_points(panel, list(zip(xs, ys, _names(records), strict=True)), bars)
    named = "figure_2c" if (first, second) == ("V4", "IT") else f"figure_2c-{first}-{second}"
    return NamedFigure(
        named,
        f"NRP-error of {first} against that of {second}, with 95 % intervals.",
        panel.figure,
    )


def _limit(panel: Axes, xs: list[float], ys: list[float]) -> None:
    """Limits around the points, not their intervals, which may be far wider."""
    for values, limit in ((xs, panel.set_xlim), (ys, panel.set_ylim)):
        reach = max(max(values) - min(values), 1e-3)
        limit(min(values) - 0.25 * reach, max(values) + 0.25 * reach)


def _names(records: list[dict[str, Any]]) -> list[str]:
    return [str(record["model"]) for record in records]


def _untrained(records: list[dict[str, Any]]) -> list[str]:
    random = [record for record in records if record["weights"] == "none"]
    if not random:
        return []
    who = "All" if len(random) == len(records) else f"{len(random)} of {len(records)}"
    return [f"{who} with random weights: Top-1 is not theirs"]
