"""Sparsity against NRP-error (Figure 3B of the paper): the study and its figure."""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
from matplotlib.axes import Axes
from matplotlib.ticker import PercentFormatter

from nrp_onnx.backbone.pruning import measured_sparsity, prune_model
from nrp_onnx.errors import OptionError
from nrp_onnx.files import write_json
from nrp_onnx.recordings import Recordings
from nrp_onnx.report.figures import (
    PANEL_HEIGHT,
    PANEL_WIDTH,
    label_errors,
    save_study_figure,
    study_panels,
    whiskers,
)
from nrp_onnx.report.style import BASELINE, FLOOR, HEAD, INK, MUTED, NamedFigure
from nrp_onnx.scoring.comparison import ComparedPair, paired_difference
from nrp_onnx.scoring.options import ScoreOptions
from nrp_onnx.studies.scored_models import (
    StudiedModel,
    given_models,
    record_of,
    score_models,
    study_facts,
    write_csv,
)

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


UNPRUNED = "unpruned"


def study_pruning(
    model: Path,
    recordings: Recordings,
    out: Path,
    sparsities: Sequence[float],
    options: ScoreOptions,
    scope: str = "global",
    fine_tuned: Sequence[Path] = (),
) -> dict[str, Any]:
    """Score a model as it is, with its least weights zero, and with random weights zero.

    The recordings, the layers and the protocol are the same for all. Runs are in ``out/runs``; finished
    ones are taken as they are. Activations are in ``out/activations``, those of the last model: a
    layer that the next one computes in the same way is not computed again.

    Args:
        sparsities: shares of the weights from 0 to 1; 0 is always scored.
        fine_tuned: further models, such as ones that were trained after pruning; their sparsity is
            counted in their weights.

    Returns:
        The content of pruning.json: a record a model, with ``kind``, ``sparsity`` as measured, and
        ``from_unpruned``, the paired difference.

    Raises:
        OptionError: for a sparsity that is no share, or two models of one name.
        ModelError: at the end, if a model was not scored.
    """
    options = replace(options, activations=out / "activations", replace_activations=True)
    kinds = {UNPRUNED: ("unpruned", measured_sparsity(model))}
    models = [*given_models([model], options)]
    models[0] = replace(models[0], name=UNPRUNED)
    for given in given_models(fine_tuned, options):
        given = replace(given, name=f"fine-tuned-{given.name}")
        with given.file() as path:
            kinds[given.name] = ("fine-tuned", measured_sparsity(path))
        models.append(given)
    for share in _shares(sparsities):
        for kind, seed in (("magnitude", None), ("random", options.seed)):
            name = f"{kind}-{share:g}"
            prune = partial(_pruned, model.resolve(), name, share, scope, seed)
            models.append(StudiedModel(name, prune, options))
            kinds[name] = (kind, share)

    scored = score_models(models, recordings, out / "runs")
    if UNPRUNED not in scored.results:
        scored.check(out)
    records = []
    for name, run in scored.results.items():
        kind, share = kinds[name]
        if kind in ("magnitude", "random"):  # as counted when it was pruned
            share = (run.result.model.source or {})["pruning"]["sparsity"]
        record = {"kind": kind, "sparsity": share, **record_of(name, run, options.seed)}
        if name != UNPRUNED:
            pair = paired_difference(run, scored.results[UNPRUNED], options.seed)
            record["from_unpruned"] = _from(pair)
        records.append(record)
    study = {
        **study_facts("pruning", scored.results),
        "model": model.name,
        "scope": scope,
        "models": records,
        "failed": scored.failed,
    }
    write_json(out / "pruning.json", study)
    write_csv(out / "pruning.csv", records)
    save_study_figure(pruning_figure(study), out)
    scored.check(out)
    return study


def _from(pair: ComparedPair) -> dict[str, Any]:
    """A paired difference without the names of its runs."""
    content = msgspec.to_builtins(pair)
    return {key: content[key] for key in ("difference", "ci95", "wins", "n_sites", "regions")}


def _shares(sparsities: Sequence[float]) -> list[float]:
    for share in sparsities:
        if not 0 <= share <= 1:
            raise OptionError(
                "this is no share of the weights",
                where="--sparsity",
                expected="numbers from 0 to 1 with commas",
                found=share,
            )
    return sorted({share for share in sparsities if share > 0})


@contextmanager
def _pruned(model: Path, name: str, share: float, scope: str, seed: int | None) -> Iterator[Path]:
    """The pruned model, while it is scored: it can always be made again, and the run holds it."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{name}.onnx"
        prune_model(model, path, share, scope, seed)
        yield path
