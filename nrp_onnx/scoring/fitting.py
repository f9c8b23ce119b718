"""Fits every predictor on each training fold and predicts the held-out images, once each."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch

from nrp_onnx.predictor.baselines import BASELINES, fit_baselines
from nrp_onnx.predictor.basis import Basis, fit_basis
from nrp_onnx.predictor.cores import map_on_cores
from nrp_onnx.predictor.fit_predictor import fit_predictor, n_heads
from nrp_onnx.predictor.layer_span import LayerSpan
from nrp_onnx.predictor.nrp_predictor import NrpPredictor
from nrp_onnx.predictor.search import SearchImages
from nrp_onnx.predictor.search_space import SearchSpace
from nrp_onnx.predictor.trial_record import TrialRecord
from nrp_onnx.progress import progress_bar
from nrp_onnx.recordings import Recordings
from nrp_onnx.scoring.splits import Fold

PREDICTORS = (*BASELINES, "nrp")

#: Between the seeds of two repeats: more than the folds and the heads of an ensemble take.
_SEEDS_APART = 1000


@dataclass(frozen=True)
class Scaling:
    """From recorded units to those of the score and back: (rate - offset) / scale, per site."""

    offset: np.ndarray
    scale: np.ndarray


@dataclass(frozen=True)
class FittedFold:
    """What is needed to export the predictor of a fold; ``bases`` are of all candidate layers."""

    predictor: NrpPredictor
    bases: list[Basis]
    offset: np.ndarray
    scale: np.ndarray


@dataclass(frozen=True)
class Fits:
    """Held-out predictions of all images.

    Attributes:
        predictions: for each predictor float64 (n_stimuli, n_sites), in recorded units.
        of_seeds: the NRP head's predictions by each seed, those of the first one included.
        scales: float64 (n_stimuli, n_sites): errors are divided by these to be in score units.
        first: the fold that is exported.
        n_trials: how many heads were trained.
        best: the chosen head of each fold, without its curves.
        n_directions: for each layer, in how many directions the images differ at most.
    """

    predictions: dict[str, np.ndarray]
    of_seeds: list[np.ndarray]
    scales: np.ndarray
    first: FittedFold
    n_trials: int
    best: list[dict[str, Any]]
    n_directions: dict[str, int]


def site_scaling(rates: np.ndarray, normalise: str) -> Scaling:
    """Offset and scale of each site from its training responses (n_train, n_sites).

    ``zscore`` divides by each site's standard deviation. ``none`` leaves the units; the head is
    still trained on rates less their mean over one common scale, which changes no error's rank.
    """
    offset = np.nanmean(rates, axis=0)
    deviation = np.nanstd(rates, axis=0)
    if normalise == "zscore":
        scale = np.where(deviation > 0, deviation, 1.0)
    else:
        common = float(np.sqrt(np.mean(deviation**2)))
        scale = np.full_like(deviation, common or 1.0)
    return Scaling(offset, scale)


def fit_folds(
    layers: Sequence[LayerSpan],
    layer_names: Sequence[str],
    recordings: Recordings,
    folds: Sequence[Fold],
    space: SearchSpace,
    normalise: str,
    seed: int,
    record: TrialRecord,
    n_seeds: int = 1,
) -> Fits:
    """Fit baselines and NRP heads on each fold.

    Args:
        layers: the span of the images in each layer, in the order of the stimuli.
        normalise: ``zscore`` or ``none``.
        record: trials that it holds are not trained again.
        n_seeds: how often heads are searched and trained on each fold, each time from another seed.
    """
    rates = recordings.averages
    region_of = np.array(recordings.regions)
    regions = [
        torch.from_numpy(np.flatnonzero(region_of == name)) for name in recordings.region_names
    ]
    predictions = {name: np.full(rates.shape, np.nan) for name in BASELINES}
    scales = np.full(rates.shape, np.nan)
    best, first = [], None
    n_directions = dict.fromkeys(layer_names, 0)
    of_seeds = [np.full(rates.shape, np.nan) for _ in range(n_seeds)]
    n_trials = len(folds) * n_seeds * n_heads(space, len(layers))
    with progress_bar("Training NRP heads", n_trials) as advance:
        for number, fold in enumerate(folds):
            train, test = fold.train, fold.test
            scaling = site_scaling(rates[train], normalise)
            scales[test] = scaling.scale if normalise == "zscore" else 1.0
            targets = (rates - scaling.offset) / scaling.scale

            def restore(predicted: np.ndarray, scaling: Scaling = scaling) -> np.ndarray:
                rates: np.ndarray = predicted * scaling.scale + scaling.offset
                return rates

            bases = map_on_cores(partial(fit_basis, train=train, most=space.directions), layers)
            for name, basis in zip(layer_names, bases, strict=True):
                n_directions[name] = max(n_directions[name], basis.n_directions)
            differing = [
                span for span, basis in zip(layers, bases, strict=True) if basis.n_directions
            ]
            baselines = fit_baselines(differing, targets[train], train, test)
            for name, predicted in baselines.predictions.items():
                predictions[name][test] = restore(predicted)
            images = SearchImages(
                [torch.from_numpy(basis.coordinates) for basis in bases],
                torch.from_numpy(targets.astype(np.float32)),
                torch.from_numpy(fold.fit),
                torch.from_numpy(fold.validation),
                regions,
            )
            fitted = []
            for repeat, predictions_of_seed in enumerate(of_seeds):
                own_seed = seed + _SEEDS_APART * repeat + number
                fitted.append(
                    fit_predictor(
                        space, images, differing, baselines.ridge, own_seed, advance, record, number
                    )
                )
                predictions_of_seed[test] = restore(fitted[-1][0].rates(images.inputs, test))
            predictor, chosen = fitted[0]
            best.append(
                {
                    **_without_curves(record.row(number, chosen)),
                    "linear_share": _share_of_regions(predictor, recordings),
                }
            )
            if first is None:
                first = FittedFold(predictor, bases, scaling.offset, scaling.scale)
    assert first is not None
    predictions["nrp"] = of_seeds[0]
    return Fits(predictions, of_seeds, scales, first, record.n_trials, best, n_directions)


def notes_on_layers(n_directions: Mapping[str, int]) -> list[str]:
    """What is to be said of layers in which images hardly differ, or not at all."""
    notes = []
    for name, number in n_directions.items():
        if number == 0:
            notes.append(
                f"the layer {name} is the same for every image, but for rounding: it predicts nothing"
            )
        elif number == 1:
            notes.append(
                f"the layer {name} differs between images by one number alone: all its activations "
                "lie on a line"
            )
    if not any(n_directions.values()):
        notes.append(
            "no layer tells the images apart: every predictor gives the same rates for all of them, "
            "so the NRP-error is that of the mean response"
        )
    return notes


def _without_curves(row: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in row.items() if key not in ("curve", "losses")}


def _share_of_regions(predictor: NrpPredictor, recordings: Recordings) -> dict[str, float]:
    return {
        name: float(predictor.share[recordings.regions.index(name)])
        for name in recordings.region_names
    }
