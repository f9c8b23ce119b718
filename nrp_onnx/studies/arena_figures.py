"""The figures of the arena: errors, pooled differences, receptive fields, error against reliability."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from nrp_onnx.report.figures import PANEL_WIDTH, label_errors, study_panels, whiskers
from nrp_onnx.report.site_figures import draw_fields, draw_reliability
from nrp_onnx.report.sites import site_columns, site_errors
from nrp_onnx.report.style import BASELINE, FLOOR, HEAD, MUTED, NamedFigure
from nrp_onnx.scoring.run import FinishedRun
from nrp_onnx.studies.arena_words import named

Runs = Mapping[tuple[str, str], FinishedRun]
_COLUMNS = 2
_ROW = 0.34
_FRAME = 1.4
_SQUARE = 3.8
_COLOURS = (HEAD, BASELINE, MUTED)


def arena_figures(
    study: Mapping[str, Any], runs: Runs, predictors: Sequence[str]
) -> tuple[list[NamedFigure], list[str]]:
    """All figures that can be drawn, and why others cannot.

    Args:
        study: the content of arena.json.
        predictors: whose errors are drawn, the headline first.
    """
    figures = [errors_figure(study, predictors)]
    if study["predictor_pairs"]:
        figures.append(differences_figure(study, "predictor_pairs", "arena_predictors", named))
    if study["model_pairs"]:
        figures.append(differences_figure(study, "model_pairs", "arena_models", str))
    missing = []
    fields, why = fields_figure(study, runs)
    against, why_not = reliability_figure(study, runs)
    figures += [figure for figure in (fields, against) if figure is not None]
    missing += [reason for reason in (why, why_not) if reason]
    return figures, missing


def errors_figure(study: Mapping[str, Any], predictors: Sequence[str]) -> NamedFigure:
    """The error of each model, a panel a recordings; the noise floor where it is known."""
    models = [of["model"] for of in study["models"]]
    scores = {(of["model"], of["recordings"]): of for of in study["scores"]}
    names = [of["name"] for of in study["recordings"]]
    rows = -(-len(names) // _COLUMNS)
    columns = min(_COLUMNS, len(names))
    height = rows * (_FRAME + _ROW * len(models))
    with study_panels(
        rows, columns, height, 1.4 * PANEL_WIDTH * columns, simulated=_simulated(study), sharey=True
    ) as axes:
        for panel, name in zip(axes.flat, names, strict=False):
            for place, model in enumerate(models):
                if (model, name) in scores:
                    _model_row(panel, place, scores[model, name], predictors)
            panel.set_title(name)
            panel.set_yticks(range(len(models)), models)
            panel.set_ylim(len(models) - 0.4, -0.6)
            label_errors(panel.xaxis, study["units"], "error")
        _hide(axes, len(names))
        handles = [
            axes.flat[0].plot([], [], "o", color=colour, label=named(of))[0]
            for of, colour in zip(predictors, _COLOURS, strict=False)
        ]
        figure = axes.flat[0].figure
        figure.legend(handles=handles, loc="outside upper left", ncols=len(handles))
    return NamedFigure(
        "arena_errors",
        "Error of each model on each recordings, with 95 % intervals over its images and sites. A "
        "green bar is the noise floor, where it is known. Further left is better.",
        figure,
    )


def _model_row(
    panel: Axes, place: int, score: Mapping[str, Any], predictors: Sequence[str]
) -> None:
    shift = (len(predictors) - 1) / 2
    for number, (name, colour) in enumerate(zip(predictors, _COLOURS, strict=False)):
        found = score["predictors"][name]
        panel.errorbar(
            [found["mae"]], [place + 0.22 * (number - shift)],
            xerr=whiskers([found["mae"]], [found["ci95"]]), fmt="o", color=colour, markersize=4.5,
            capsize=2, elinewidth=1,
        )  # fmt: skip
    if score["noise_floor"] is not None:
        panel.plot([score["noise_floor"]], [place], "|", color=FLOOR, markersize=12, mew=2)


def differences_figure(
    study: Mapping[str, Any], kind: str, name: str, called: Callable[[str], str]
) -> NamedFigure:
    """The pooled difference of each pair with its interval, and that of each recordings.

    Args:
        kind: the key of the pairs in arena.json.
        called: the name in words of one of a pair.
    """
    records = study[kind]
    height = _FRAME + _ROW * len(records)
    with study_panels(1, 1, height, 2 * PANEL_WIDTH, simulated=_simulated(study)) as axes:
        panel = axes[0, 0]
        panel.axvline(0, color=MUTED, linewidth=1)
        for place, record in enumerate(records):
            alone = [of["difference"] for of in record["recordings"].values()]
            panel.plot(alone, [place] * len(alone), "|", color=BASELINE, markersize=9)
            found = record["mae"]
            panel.errorbar(
                [found["difference"]], [place],
                xerr=whiskers([found["difference"]], [found["ci95"]]), fmt="o", color=HEAD,
                markersize=5.5, capsize=3,
            )  # fmt: skip
        labels = [f"{called(of['first'])} less {called(of['second'])}" for of in records]
        panel.set_yticks(range(len(records)), labels)
        panel.set_ylim(len(records) - 0.4, -0.6)
        panel.xaxis.set_major_locator(MaxNLocator(5))
        label_errors(panel.xaxis, study["units"], "difference")
    return NamedFigure(
        name,
        "Paired differences pooled over animals and sessions, with 95 % intervals that are not "
        "corrected for the number of pairs; bars: each recordings alone. Left of 0 the first errs less.",
        panel.figure,
    )


def fields_figure(study: Mapping[str, Any], runs: Runs) -> tuple[NamedFigure | None, str | None]:
    """The receptive fields of the sites, a panel a recordings, from its model of least error.

    Returns:
        The figure, or None and why there is none.
    """
    shown = []
    for name in (of["name"] for of in study["recordings"]):
        best = _best(runs, name)
        columns = None if best is None else site_columns(best)
        if columns is not None and np.isfinite(columns.get("rf_x", np.array([]))).any():
            shown.append((name, columns))
    if not shown:
        return None, "Receptive fields are not drawn: the runs have none (rf_x, rf_y in sites.csv)."
    with _squares(len(shown), study) as axes:
        for panel, (name, columns) in zip(axes.flat, shown, strict=False):
            draw_fields(panel, columns)
            panel.set_title(name)
        _hide(axes, len(shown))
    return (
        NamedFigure(
            "arena_fields",
            "Receptive fields of the sites on the image, as the model of least error on each recordings "
            "has them: centre, and a circle of one sigma. Darker: more reliable; grey: not known.",
            axes.flat[0].figure,
        ),
        None,
    )


def reliability_figure(
    study: Mapping[str, Any], runs: Runs
) -> tuple[NamedFigure | None, str | None]:
    """Error of each site, mean over models, against its reliability, a panel a recordings.

    Returns:
        The figure, or None and why there is none.
    """
    shown = []
    for name in (of["name"] for of in study["recordings"]):
        own = [run for (_, of), run in runs.items() if of == name]
        columns = site_columns(own[0]) if own else None
        if columns is not None and np.isfinite(columns["reliability"]).any():
            errors = np.mean([site_errors(run, run.headline) for run in own], axis=0)
            shown.append((name, columns["reliability"], errors))
    if not shown:
        return None, (
            "Error against reliability is not drawn: no site has a reliability, which takes "
            "repetitions."
        )
    with _squares(len(shown), study) as axes:
        for panel, (name, reliability, errors) in zip(axes.flat, shown, strict=False):
            draw_reliability(panel, reliability, errors)
            panel.set_title(name)
            label_errors(panel.yaxis, study["units"])
        _hide(axes, len(shown))
    return (
        NamedFigure(
            "arena_reliability",
            "Error of each site, mean over models, against its split-half reliability.",
            axes.flat[0].figure,
        ),
        None,
    )


def _best(runs: Runs, recordings: str) -> FinishedRun | None:
    own = [run for (_, name), run in runs.items() if name == recordings]
    return min(own, key=lambda run: run.nrp_error, default=None)


def _squares(n: int, study: Mapping[str, Any]) -> Any:
    rows, columns = -(-n // _COLUMNS), min(_COLUMNS, n)
    return study_panels(
        rows, columns, _SQUARE * rows, 1.1 * _SQUARE * columns, simulated=_simulated(study)
    )


def _hide(axes: np.ndarray, n: int) -> None:
    for panel in axes.flat[n:]:
        panel.set_visible(False)


def _simulated(study: Mapping[str, Any]) -> bool:
    return any(of["simulated"] for of in study["recordings"])
