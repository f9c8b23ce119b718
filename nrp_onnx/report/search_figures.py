"""Figures of the search: how the heads trained, how the configs fared, and each layer alone."""

from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from matplotlib.ticker import MaxNLocator, NullLocator

from nrp_onnx.report.style import BASELINE, HEAD, NamedFigure, panel, set_title
from nrp_onnx.report.words import is_simulated
from nrp_onnx.scoring.run import FinishedRun
from nrp_onnx.scoring.run_folder import TRIALS_FILE

#: Rows of trials.parquet.
Trials = list[dict[str, Any]]

_MOST_CONFIGS = 16
#: A logarithmic axis over a smaller ratio may hold none of 1, 2 and 5, or one.
_WITHOUT_DECADES = 3
_WORDS = {
    "learning_rate": "rate", "dropout": "dropout", "weight_decay": "decay", "loss": "loss",
    "input_noise": "noise",
}  # fmt: skip


def read_trials(folder: Path) -> Trials:
    """The trials of a run; none where it kept none."""
    path = folder / TRIALS_FILE
    trials: Trials = pq.read_table(path).to_pylist() if path.is_file() else []
    return trials


def training_figure(run: FinishedRun, trials: Trials) -> NamedFigure | None:
    """The validation error after each epoch of every head; None if no curves were kept."""
    curves = [trial for trial in trials if trial.get("curve")]
    if not curves:
        return None
    best = {fold: min(heads, key=_error) for fold, heads in _by_fold(curves).items()}
    others = len(curves) > len(best)
    faint = 0.6 if len(curves) <= 40 else 0.25
    with panel(2.9, simulated=is_simulated(run)) as axes:
        for trial in curves:
            if trial is not best[trial["fold"]]:
                axes.plot(
                    _epochs(trial), trial["curve"], color=BASELINE, alpha=faint, linewidth=0.7
                )
        for trial in best.values():
            axes.plot(_epochs(trial), trial["curve"], color=HEAD, linewidth=1.5)
            reached = int(trial["epochs"])
            if 1 <= reached <= len(trial["curve"]):
                axes.plot(reached, trial["curve"][reached - 1], "o", color=HEAD, markersize=4)
        values = np.concatenate([trial["curve"] for trial in curves])
        finite = values[np.isfinite(values)]
        # A head that diverges would flatten all others.
        low, high = finite.min(), np.quantile(finite, 0.98)
        margin = 0.05 * (high - low) or 0.05
        axes.set_ylim(low - margin, high + margin)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=7))
        axes.plot([], [], color=HEAD, linewidth=1.5, marker="o", markersize=4, label="lowest of each fold")  # fmt: skip
        if others:
            axes.plot([], [], color=BASELINE, alpha=faint, linewidth=0.7, label="other heads")
        axes.legend(loc="upper right")
        axes.set_xlabel("epoch")
        axes.set_ylabel("validation error")
        set_title(axes, f"Training of {len(curves):,} heads")
    return NamedFigure(
        "training",
        "Mean absolute error on the validation images, a part of the training images, after each "
        "epoch. The dot is the epoch whose weights were kept.",
        axes.figure,  # type: ignore[arg-type]
    )


def loss_figure(run: FinishedRun, trials: Trials) -> NamedFigure | None:
    """The training loss of each epoch of the best head of each fold; None if none was kept."""
    kept = [trial for trial in trials if trial.get("losses")]
    if not kept:
        return None
    with panel(2.9, simulated=is_simulated(run)) as axes:
        for heads in _by_fold(kept).values():
            losses = min(heads, key=_error)["losses"]
            axes.plot(range(1, len(losses) + 1), losses, color=HEAD, linewidth=1.2, alpha=0.8)
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter(
            lambda value, _: f"{value:g}" if f"{value:e}"[0] in "25" else ""
        )
        lowest, highest = axes.get_ylim()
        if highest < _WITHOUT_DECADES * lowest:
            axes.yaxis.set_major_locator(MaxNLocator(4))
            axes.yaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=7))
        axes.set_xlabel("epoch")
        axes.set_ylabel("training loss")
        set_title(axes, "Loss of the lowest of each fold")
    return NamedFigure(
        "loss",
        "Loss on the images that the weights are fitted to, of the head with the lowest validation "
        "error in each fold. It goes on falling where the validation error no longer does.",
        axes.figure,  # type: ignore[arg-type]
    )


def search_figure(run: FinishedRun, trials: Trials) -> NamedFigure | None:
    """The validation error of each config in each fold, best config first."""
    configs = _by_config(trials)
    if len(configs) < 2:
        return None
    order = sorted(configs, key=lambda config: float(np.mean([_error(t) for t in configs[config]])))
    shown = order[:_MOST_CONFIGS]
    labels = _config_labels([configs[config][0] for config in order], run)[: len(shown)]
    with panel(0.9 + 0.24 * len(shown), simulated=is_simulated(run)) as axes:
        for row, config in enumerate(shown):
            errors = [_error(trial) for trial in configs[config]]
            axes.plot(errors, [row] * len(errors), "o", color=BASELINE, alpha=0.45, markersize=4, markeredgewidth=0)  # fmt: skip
            axes.plot(np.mean(errors), row, "|", color=HEAD, markersize=11, markeredgewidth=2)
        axes.set_yticks(range(len(shown)), labels, fontsize=8)
        axes.set_ylim(len(shown) - 0.4, -0.6)
        axes.grid(visible=False, axis="y")
        axes.tick_params(axis="y", length=0)
        axes.locator_params(axis="x", nbins=5)
        axes.set_xlabel("validation error")
        of = f"the best {len(shown)} of " if len(order) > len(shown) else ""
        set_title(axes, f"Search: {of}{len(order):,} configurations")
    return NamedFigure(
        "search",
        "Validation error of each configuration of the head: a dot for each fold, the bar is their "
        "mean. 64/128: units of NRP-L1, for each layer, and of NRP-L2. The test images had no part.",
        axes.figure,  # type: ignore[arg-type]
    )


def layers_figure(run: FinishedRun, trials: Trials) -> NamedFigure | None:
    """The lowest validation error with each layer alone, over depth."""
    alone: dict[str, dict[int, float]] = defaultdict(dict)
    together: dict[int, float] = {}
    depth = [layer.name for layer in run.result.model.layers]
    for trial in trials:
        kept = alone[trial["layers"][0]] if len(trial["layers"]) == 1 else together
        kept[trial["fold"]] = min(_error(trial), kept.get(trial["fold"], np.inf))
    names = [name for name in depth if name in alone]
    if len(names) < 2:
        return None
    with panel(3.1, simulated=is_simulated(run)) as axes:
        for place, name in enumerate(names):
            errors = list(alone[name].values())
            axes.plot([place] * len(errors), errors, "o", color=BASELINE, alpha=0.4, markersize=4, markeredgewidth=0)  # fmt: skip
        means = [np.mean(list(alone[name].values())) for name in names]
        axes.plot(range(len(names)), means, color=BASELINE, linewidth=1.6)
        if together:
            axes.axhline(float(np.mean(list(together.values()))), color=HEAD, linewidth=1.5)
            axes.plot([], [], color=HEAD, linewidth=1.5, label="several layers together")
            axes.plot([], [], color=BASELINE, linewidth=1.6, marker="o", markersize=4, label="one layer alone")  # fmt: skip
            axes.legend(loc="best")
        rotation = 0 if len(names) <= 6 and max(map(len, names)) <= 6 else 40
        axes.set_xticks(
            range(len(names)), [_short(name) for name in names], rotation=rotation,
            ha="right" if rotation else "center", rotation_mode="anchor",
        )  # fmt: skip
        axes.set_xlabel("layer, from the image inwards")
        axes.set_ylabel("validation error")
        set_title(axes, "Each layer alone")
    return NamedFigure(
        "layers",
        "Lowest validation error of heads that see one layer alone, by depth: a dot for each fold, "
        "the line is their mean.",
        axes.figure,  # type: ignore[arg-type]
    )


def _error(trial: dict[str, Any]) -> float:
    value = trial["validation_mae"]
    return float("inf") if value is None or np.isnan(value) else float(value)


def _epochs(trial: dict[str, Any]) -> range:
    return range(1, len(trial["curve"]) + 1)


def _by_fold(trials: Trials) -> dict[int, Trials]:
    folds: dict[int, Trials] = defaultdict(list)
    for trial in trials:
        folds[trial["fold"]].append(trial)
    return folds


def _by_config(trials: Trials) -> dict[tuple[Any, ...], Trials]:
    """Trials of one config: all but fold and seed alike; those that gave no error are left out."""
    configs: dict[tuple[Any, ...], Trials] = defaultdict(list)
    for trial in trials:
        if np.isfinite(_error(trial)):
            key = (*_shape(trial), *(trial.get(name) for name in _WORDS))
            configs[key].append(trial)
    return configs


def _config_labels(configs: Trials, run: FinishedRun) -> list[str]:
    """What tells the configs apart, in a few words each."""
    sizes_vary = len({_shape(config)[1:] for config in configs}) > 1
    varies = [name for name in _WORDS if len({config.get(name) for config in configs}) > 1]
    layers_vary = len({tuple(config["layers"]) for config in configs}) > 1
    n_layers = len(run.result.model.layers)
    labels = []
    for config in configs:
        parts = []
        if layers_vary:
            layers = config["layers"]
            if len(layers) == n_layers:
                parts.append("all layers")
            else:
                parts.append(_short(layers[0]) if len(layers) == 1 else f"{len(layers)} layers")
        if sizes_vary:
            parts.append(f"{config['l1']}/{config['l2']}")
        for name in varies:
            value = config.get(name)
            parts.append(f"{_WORDS[name]} {value:g}" if isinstance(value, int | float) else f"{value}")  # fmt: skip
        labels.append(", ".join(parts))
    return labels


def _shape(config: dict[str, Any]) -> tuple[tuple[str, ...], int, int]:
    return tuple(config["layers"]), config["l1"], config["l2"]


def _short(name: str) -> str:
    return name if len(name) <= 18 else f"…{name[-17:]}"
