"""Robustness against NRP-error: the figure and the table of the study."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator
from rich.table import Table

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
from nrp_onnx.report.style import HEAD, NamedFigure


@dataclass(frozen=True)
class Change:
    """One change at one level.

    Attributes:
        key: of the records: ``sensitivity`` (to noise) or ``fgsm``.
        level: as the records have it, in grey levels of 255.
        name: for people.
        correlation: of what was measured and the NRP-error; None over too few models.
    """

    key: str
    level: str
    name: str
    correlation: Mapping[str, Any] | None


def changes_of(study: Mapping[str, Any]) -> list[Change]:
    """All changes, in the order of the command line.

    Args:
        study: the content of robustness.json.
    """
    found = study.get("fgsm", {"rank_correlation": {}})["rank_correlation"]
    kinds = {"sensitivity": ("noise of", study["rank_correlation"]), "fgsm": ("FGSM of", found)}
    return [
        Change(key, level, f"{name} {level}", correlation)
        for key, (name, correlations) in kinds.items()
        for level, correlation in correlations.items()
    ]


def measured(study: Mapping[str, Any], change: Change) -> list[Mapping[str, Any]]:
    """The records of the models that have it: FGSM needs gradients."""
    return [of for of in study["models"] if of[change.key][change.level]["value"] is not None]


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


def robustness_table(study: Mapping[str, Any]) -> Table:
    """A row a network: its NRP-error, and its sensitivity to each change of images."""
    recordings = study["recordings"]
    simulated = "  SIMULATED" if recordings["simulated"] else ""
    lines = [
        f"MAE in {study['units']}, held-out images; sensitivity on {study['n_images']} images: "
        "1 is as far as another image; 95 % intervals"
    ]
    changes = changes_of(study)
    for change in changes:
        if change.correlation is not None:
            lines.append(f"{change.name}: {correlation_text(change.correlation)}")
    table = Table(title=f"Robustness on {recordings['name']}{simulated}", caption="\n".join(lines))
    table.add_column("network")
    table.add_column("NRP-error", justify="right")
    for change in changes:
        table.add_column(change.name, justify="right")
    for record in study["models"]:
        found = [record[change.key][change.level] for change in changes]
        table.add_row(
            record["model"],
            _cell(record["nrp_error"], record["ci95"]),
            *(_cell(of["value"], of["ci95"]) for of in found),
        )
    return table


def _cell(value: float | None, interval: list[float]) -> str:
    if value is None:
        return "no gradients"
    return f"{value:.3f}\n{interval[0]:.3f}-{interval[1]:.3f}"
