"""The fitted NRP predictor: averaged heads beside a linear path, from a search.

Heads of one shape whose rates are averaged are one NRP network: NRP-L1 and NRP-L2 as wide as all of
theirs together, NRP-L2 without weights from one head to another.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from nrp_onnx.predictor.head import HeadConfig, Job, NrpHead, Trial
from nrp_onnx.predictor.image_products import LayerSpan
from nrp_onnx.predictor.linear_path import LinearPath, fit_linear_path
from nrp_onnx.predictor.search import SearchImages, search_head, with_heads
from nrp_onnx.predictor.search_space import SearchSpace
from nrp_onnx.predictor.training import train_heads
from nrp_onnx.predictor.trials import TrialRecord


@dataclass(frozen=True, eq=False)
class NrpPredictor:
    """Rates = (1 - share) * mean of the heads + share * linear path, at each site.

    Attributes:
        layers: places of the candidate layers that the heads see.
        heads: of one shape.
        linear: None where no site has a share of it.
        share: of the linear path, float64 (n_sites,), from 0 to 1.
    """

    layers: tuple[int, ...]
    heads: tuple[NrpHead, ...]
    linear: LinearPath | None
    share: np.ndarray

    def rates(self, inputs: Sequence[Tensor], images: np.ndarray) -> np.ndarray:
        """Rates in the targets' units, float64 (k, n_sites).

        Args:
            inputs: coordinates of all images in each candidate layer, float32 (n_images, r).
            images: places of k images.
        """
        rates = mean_rates(self.heads, [inputs[place] for place in self.layers], images)
        if self.linear is None:
            return rates
        mixed: np.ndarray = rates + self.share * (self.linear.rates[images] - rates)
        return mixed


def mean_rates(
    heads: Sequence[NrpHead], inputs: Sequence[Tensor], images: np.ndarray
) -> np.ndarray:
    """Rates of heads on the same layers, averaged: float64 (k, n_sites)."""
    chosen = [x[torch.from_numpy(images)] for x in inputs]
    with torch.no_grad():
        rates: np.ndarray = torch.stack([head(chosen).double() for head in heads]).mean(0).numpy()
    return rates


def fit_predictor(
    space: SearchSpace,
    images: SearchImages,
    spans: Sequence[LayerSpan],
    ridge: LinearPath | None,
    seed: int,
    advance: Callable[[int], None],
    record: TrialRecord,
    fold: int,
) -> tuple[NrpPredictor, Trial]:
    """Search, and fit again what was chosen.

    1. The configuration with the least validation error, averaged over its seeds, is chosen.
    2. Each region takes that share of the linear path, out of ``space.linear_shares``, which gives the
       least validation error. For this choice the path is fitted on the ``fit`` images alone.
    3. ``space.members`` heads of the chosen configuration are trained on all training images, and their
       rates are averaged; without members, the chosen head stays as it is.

    Test images are not used.

    Args:
        spans: of the candidate layers in which the training images differ, for the linear path.
        ridge: the linear path, fitted on all training images.
        advance: called with the number of heads that have ended, `n_heads` in total.

    Returns:
        The predictor, and the best trial of what was chosen.
    """
    trials = search_head(space, images, seed, advance, record, fold)
    config = _chosen(trials)
    best = next(trial for trial in trials if trial.config == config)
    # Without members the predictor is one head, as in the paper: that of the best seed.
    judged = [trial for trial in trials if trial.config == config] if space.members else [best]
    searched = space.jobs([config.layers], seed)
    heads = tuple(trial.head for trial in with_heads(judged, images, space.plan, searched))
    share = np.zeros(images.targets.shape[1])
    if ridge and any(space.linear_shares):
        share = _shares(space.linear_shares, images, spans, heads, config)
    if space.members:
        heads = _refit(space, images, config, best, seed, advance)
    return NrpPredictor(config.layers, heads, ridge if share.any() else None, share), best


def n_heads(space: SearchSpace, n_layers: int) -> int:
    """How many heads `fit_predictor` trains, at most."""
    return space.n_jobs(n_layers) + space.members


def _chosen(trials: Sequence[Trial]) -> HeadConfig:
    errors: dict[HeadConfig, list[float]] = {}
    for trial in trials:
        errors.setdefault(trial.config, []).append(trial.validation_mae)
    return min(errors, key=lambda config: float(np.mean(errors[config])))


def _shares(
    shares: Sequence[float],
    images: SearchImages,
    spans: Sequence[LayerSpan],
    heads: Sequence[NrpHead],
    config: HeadConfig,
) -> np.ndarray:
    fit, validation = images.fit.numpy(), images.validation.numpy()
    targets = images.targets.double().numpy()
    path = fit_linear_path(spans, targets[fit], fit, validation)
    of_heads = mean_rates(heads, [images.inputs[place] for place in config.layers], validation)
    of_path, recorded = path.rates[validation], targets[validation]
    chosen = np.zeros(targets.shape[1])
    for region in images.regions:
        sites = region.numpy()
        errors = [
            np.nanmean(np.abs(of_heads + share * (of_path - of_heads) - recorded)[:, sites])
            for share in shares
        ]
        chosen[sites] = shares[int(np.argmin(errors))]
    return chosen


def _refit(
    space: SearchSpace,
    images: SearchImages,
    config: HeadConfig,
    best: Trial,
    seed: int,
    advance: Callable[[int], None],
) -> tuple[NrpHead, ...]:
    jobs = [Job(config, seed + place) for place in range(space.members)]
    # A schedule that ends at a rate of 0 needs all its epochs; else training stops at the best one.
    plan = (
        space.plan
        if space.plan.schedule == "cosine"
        else replace(space.plan, max_epochs=max(best.epochs, 1))
    )
    train = torch.cat([images.fit, images.validation]).sort().values
    refitted = train_heads(
        images.inputs,
        images.targets,
        train,
        None,
        images.regions,
        jobs,
        plan,
        advance,
    )
    return tuple(trained.head for trained in refitted)
