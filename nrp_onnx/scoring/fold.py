"""Fits every predictor on one training fold and predicts its held-out images: first all but the heads."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch

from nrp_onnx.predictor.baselines import Baselines, fit_baselines
from nrp_onnx.predictor.directions import Basis, fit_basis
from nrp_onnx.predictor.image_products import LayerSpan
from nrp_onnx.predictor.nrp_predictor import NrpPredictor, fit_predictor
from nrp_onnx.predictor.search import SearchImages
from nrp_onnx.predictor.search_space import SearchSpace
from nrp_onnx.predictor.trials import TrialRecord
from nrp_onnx.scoring.splits import Fold
from nrp_onnx.threads import map_on_cores

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
class FoldPlan:
    """What all folds have in common.

    Attributes:
        rates: float64 (n_stimuli, n_sites), NaN is missing.
        regions: one a site.
        region_names: in the order of the score.
        normalise: ``zscore`` or ``none``.
        seed: of the first fold.
        n_seeds: how often heads are searched and trained on each fold, each time from another seed.
    """

    rates: np.ndarray
    regions: tuple[str, ...]
    region_names: tuple[str, ...]
    space: SearchSpace
    normalise: str
    seed: int
    n_seeds: int


@dataclass(frozen=True, eq=False)
class PreparedFold:
    """All of a fold but its heads.

    Attributes:
        targets: float64 (n_stimuli, n_sites), scaled rates.
        bases: of all candidate layers.
        differing: the layers in which the training images differ.
    """

    number: int
    fold: Fold
    scaling: Scaling
    targets: np.ndarray
    bases: list[Basis]
    differing: list[LayerSpan]
    baselines: Baselines

    def restore(self, predicted: np.ndarray) -> np.ndarray:
        """Scaled rates in recorded units."""
        rates: np.ndarray = predicted * self.scaling.scale + self.scaling.offset
        return rates


@dataclass(frozen=True)
class FoldFit:
    """What came of a fold.

    Attributes:
        predictions: of each baseline, float64 (n_test, n_sites), in recorded units.
        predictions_by_seed: of the NRP head, by each seed.
        scale: (n_sites,), by which errors are divided to be in score units.
        n_directions: of each layer, in how many directions the training images differ.
        best: the chosen head, without its curves.
        fitted: of the first fold; None of the others, which are not exported.
    """

    predictions: dict[str, np.ndarray]
    predictions_by_seed: list[np.ndarray]
    scale: np.ndarray | float
    n_directions: list[int]
    best: dict[str, Any]
    fitted: FittedFold | None


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


def prepare_fold(
    plan: FoldPlan, layers: Sequence[LayerSpan], number: int, fold: Fold
) -> PreparedFold:
    """Find what the heads see of each layer, and fit the baselines.

    Args:
        layers: the span of the images in each layer, in the order of the stimuli.
        number: of the fold, from 0.
    """
    train = fold.train
    scaling = site_scaling(plan.rates[train], plan.normalise)
    targets = (plan.rates - scaling.offset) / scaling.scale
    bases = map_on_cores(partial(fit_basis, train=train, most=plan.space.directions), layers)
    differing = [span for span, basis in zip(layers, bases, strict=True) if basis.n_directions]
    baselines = fit_baselines(differing, targets[train], train, fold.test, plan.space.kernel_ridge)
    return PreparedFold(number, fold, scaling, targets, bases, differing, baselines)


def fit_heads(
    plan: FoldPlan, prepared: PreparedFold, record: TrialRecord, advance: Callable[[int], None]
) -> FoldFit:
    """Search and train the NRP heads of a fold.

    Args:
        record: trials that it holds are not trained again.
        advance: called with the number of heads that are done with.
    """
    number, fold, bases = prepared.number, prepared.fold, prepared.bases
    scaling, baselines = prepared.scaling, prepared.baselines
    region_of = np.array(plan.regions)
    images = SearchImages(
        [torch.from_numpy(basis.coordinates) for basis in bases],
        torch.from_numpy(prepared.targets.astype(np.float32)),
        torch.from_numpy(fold.fit),
        torch.from_numpy(fold.validation),
        [torch.from_numpy(np.flatnonzero(region_of == name)) for name in plan.region_names],
    )
    fitted, predictions_by_seed = [], []
    for repeat in range(plan.n_seeds):
        own_seed = plan.seed + _SEEDS_APART * repeat + number
        fitted.append(
            fit_predictor(
                *(plan.space, images, prepared.differing, baselines.ridge, own_seed),
                *(advance, record, number),
            )
        )
        predictions_by_seed.append(prepared.restore(fitted[-1][0].rates(images.inputs, fold.test)))
    predictor, chosen = fitted[0]
    return FoldFit(
        {name: prepared.restore(predicted) for name, predicted in baselines.predictions.items()},
        predictions_by_seed,
        scaling.scale if plan.normalise == "zscore" else 1.0,
        [basis.n_directions for basis in bases],
        {
            **_without_curves(record.row(number, chosen)),
            "linear_share": _share_of_regions(predictor, plan),
        },
        FittedFold(predictor, bases, scaling.offset, scaling.scale) if number == 0 else None,
    )


def _without_curves(row: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in row.items() if key not in ("curve", "losses")}


def _share_of_regions(predictor: NrpPredictor, plan: FoldPlan) -> dict[str, float]:
    return {name: float(predictor.share[plan.regions.index(name)]) for name in plan.region_names}
