"""The fitted NRP predictor: averaged heads, beside a ridge or a masked kernel ridge.

Heads of one shape whose rates are averaged are one NRP network, with units of all of them side by side
and no weights from one head to another.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np
import torch
from torch import Tensor, nn

from nrp_onnx.predictor.calibration import Line, Rates, SquareRoot, fit_lines
from nrp_onnx.predictor.head import HeadConfig, Job, TrainedHead, Trial
from nrp_onnx.predictor.kernel_path import KernelPath
from nrp_onnx.predictor.linear_path import LinearPath, PrimalPath
from nrp_onnx.predictor.rows_on_disk import RowsOnDisk
from nrp_onnx.predictor.search import SearchImages, cross_fit, search_head, with_heads
from nrp_onnx.predictor.search_space import SearchSpace
from nrp_onnx.predictor.training import train_heads
from nrp_onnx.predictor.trials import TrialRecord


@dataclass(frozen=True, eq=False)
class NrpPredictor:
    """Rates = weight * network + path_weight * path, at each site.

    Attributes:
        layers: places of the candidate layers that the heads see.
        heads: of one shape; the network is their mean.
        root: where the heads predict scaled square roots of the recorded rates, how they are turned
            back; None where they predict the targets.
        path: ridge or masked kernel ridge; None where no site has a share of it.
        weight, path_weight: float64 (n_sites,).
    """

    layers: tuple[int, ...]
    heads: tuple[nn.Module, ...]
    root: SquareRoot | None
    path: LinearPath | PrimalPath | KernelPath | None
    weight: np.ndarray
    path_weight: np.ndarray


@dataclass(frozen=True, eq=False)
class FittedHeads:
    """The heads of a fold.

    Attributes:
        layers: places of the candidate layers that they see.
        heads: of one shape.
        held_out: rates of training images from heads that were not trained on them, float64
            (n_train, n_sites), in the units that the heads predict; NaN where there are none.
        best: the best trial of what was chosen.
    """

    layers: tuple[int, ...]
    heads: tuple[nn.Module, ...]
    held_out: np.ndarray
    best: Trial

    def rates(self, inputs: Sequence[Tensor | RowsOnDisk], images: np.ndarray) -> np.ndarray:
        """Their mean rates, float64 (k, n_sites); see `mean_rates`."""
        return mean_rates(self.heads, [inputs[place] for place in self.layers], images)


#: Images whose rates are computed at a time.
_BLOCK = 256


def mean_rates(
    heads: Sequence[nn.Module], inputs: Sequence[Tensor | RowsOnDisk], images: np.ndarray
) -> np.ndarray:
    """Rates of heads on the same layers, averaged: float64 (k, n_sites).

    Args:
        inputs: of all images in each layer that the heads see.
        images: places of k images.
    """
    rates = []
    with torch.no_grad():
        for block in torch.from_numpy(images).split(_BLOCK):
            chosen = [x[block] for x in inputs]
            rates.append(torch.stack([head(chosen).double() for head in heads]).mean(0))
    found: np.ndarray = torch.cat(rates).numpy()
    return found


def fit_heads(
    space: SearchSpace,
    images: SearchImages,
    seed: int,
    advance: Callable[[int], None],
    record: TrialRecord,
    fold: int,
) -> FittedHeads:
    """Search, and fit what was chosen; test images are not used.

    The configuration with the least validation error, averaged over its seeds and parts, is chosen.
    With ``space.parts``, its heads were each trained without one part of the training images, and all
    of them are kept. Else ``space.members`` heads of it are trained on all training images; without
    members, the head of the best seed stays as it is, as in the paper.

    Args:
        advance: called with the number of heads that have ended, `n_heads` in total.
    """
    if images.parts:
        return _cross_fitted(space, images, seed, advance, record, fold)
    trials = search_head(space, images, seed, advance, record, fold)
    config = _chosen(trials)
    best = next(trial for trial in trials if trial.config == config)
    # Without members the predictor is one head, as in the paper: that of the best seed.
    judged = [trial for trial in trials if trial.config == config] if space.members else [best]
    searched = space.jobs([config.layers], seed)
    heads = tuple(trial.head for trial in with_heads(judged, images, space.plan, searched))
    train = np.sort(np.concatenate([images.fit.numpy(), images.validation.numpy()]))
    held_out = np.full((len(train), images.targets.shape[1]), np.nan)
    validation = images.validation.numpy()
    inputs = [images.inputs[place] for place in config.layers]
    held_out[np.searchsorted(train, validation)] = mean_rates(heads, inputs, validation)
    if space.members:
        heads = _refit(space, images, config, best, seed, advance)
    return FittedHeads(config.layers, heads, held_out, best)


def n_heads(space: SearchSpace, n_layers: int) -> int:
    """How many heads `fit_heads` trains, at most."""
    return space.n_jobs(n_layers) * max(space.parts, 1) + space.members


def _chosen(trials: Sequence[Trial]) -> HeadConfig:
    errors: dict[HeadConfig, list[float]] = {}
    for trial in trials:
        errors.setdefault(trial.config, []).append(trial.validation_mae)
    return min(errors, key=lambda config: float(np.mean(errors[config])))


def _cross_fitted(
    space: SearchSpace,
    images: SearchImages,
    seed: int,
    advance: Callable[[int], None],
    record: TrialRecord,
    fold: int,
) -> FittedHeads:
    found = cross_fit(space, images, seed, advance, record, fold)
    config = _chosen([trial for trials in found for trial in trials])
    chosen: list[list[TrainedHead]] = [
        [trial for trial in trials if trial.config == config] for trials in found
    ]
    train = np.sort(np.concatenate([validation.numpy() for _, validation in images.parts]))
    held_out = np.full((len(train), images.targets.shape[1]), np.nan)
    inputs = [images.inputs[place] for place in config.layers]
    for trials, (_, validation) in zip(chosen, images.parts, strict=True):
        places = validation.numpy()
        rates = mean_rates([trial.head for trial in trials], inputs, places)
        held_out[np.searchsorted(train, places)] = rates
    every = [trial for trials in chosen for trial in trials]
    best = min(every, key=lambda trial: trial.validation_mae)
    return FittedHeads(config.layers, tuple(trial.head for trial in every), held_out, best)


@dataclass(frozen=True, eq=False)
class Mixture:
    """The network beside another predictor.

    Attributes:
        rates: of the mixture as it is, in the targets' units.
        line: its calibration, from held-out rates.
        share, path_share: of the network and of the other, float64 (n_sites,); the rest is the mean
            response.
    """

    rates: Rates
    line: Line
    share: np.ndarray
    path_share: np.ndarray


#: Shares of the mean response that are tried.
MEAN_SHARES = tuple(place / 10 for place in range(11))


def mix(
    shares: Sequence[float],
    network: Rates,
    path: Rates,
    recorded: np.ndarray,
    regions: Sequence[np.ndarray],
) -> Mixture:
    """Mix two predictors and the mean response, each region by the shares of least held-out error.

    The mean response is among them, so that responses that no image explains are given their mean.

    Args:
        shares: of the path that are tried; those of the mean are `MEAN_SHARES`, and the rest is of the
            network.
        network, path: rates in the targets' units, in which the mean response is 0.
        recorded: targets of the training images, float64 (n_train, n_sites), NaN = missing.
        regions: places of the sites of each region.
    """
    candidates = [
        (1 - of_path - of_mean, of_path)
        for of_path, of_mean in product(shares, MEAN_SHARES)
        if of_path + of_mean <= 1 + 1e-9
    ]
    share, path_share = np.zeros(recorded.shape[1]), np.zeros(recorded.shape[1])
    for sites in regions:
        there = ~np.isnan(recorded[:, sites]) & ~np.isnan(network.held_out[:, sites])
        of_network, of_path = (rates.held_out[:, sites][there] for rates in (network, path))
        known = recorded[:, sites][there]
        errors = [np.abs(a * of_network + b * of_path - known).mean() for a, b in candidates]
        share[sites], path_share[sites] = candidates[int(np.argmin(errors))]
    mixed = Rates(
        share * network.predicted + path_share * path.predicted,
        share * network.held_out + path_share * path.held_out,
    )
    return Mixture(mixed, fit_lines(mixed.held_out, recorded), share, path_share)


def _refit(
    space: SearchSpace,
    images: SearchImages,
    config: HeadConfig,
    best: Trial,
    seed: int,
    advance: Callable[[int], None],
) -> tuple[nn.Module, ...]:
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
        images.grids,
        images.device,
    )
    return tuple(trained.head for trained in refitted)
