"""Fits every predictor on one training fold and predicts its held-out images: first all but the heads."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch

from nrp_onnx.predictor.baselines import arc_cosine, fit_baselines
from nrp_onnx.predictor.calibration import Rates, SquareRoot, calibrate
from nrp_onnx.predictor.channels import ChannelBasis, SeenLayer, fit_channels
from nrp_onnx.predictor.directions import Basis, fit_basis
from nrp_onnx.predictor.image_products import LayerSpan
from nrp_onnx.predictor.kernel_path import KernelPath, kernel_path
from nrp_onnx.predictor.linear_path import LinearPath
from nrp_onnx.predictor.masked_ridge import (
    MaskedRidge,
    choose_views,
    fit_masked,
)
from nrp_onnx.predictor.masks import MASKS, View
from nrp_onnx.predictor.nrp_predictor import FittedHeads, NrpPredictor, fit_heads, mix
from nrp_onnx.predictor.search import SearchImages
from nrp_onnx.predictor.search_space import SearchSpace
from nrp_onnx.predictor.trials import TrialRecord
from nrp_onnx.scoring.splits import Fold, parts_of
from nrp_onnx.threads import map_on_cores

#: Between the seeds of two repeats: more than the folds and the heads of an ensemble take.
_SEEDS_APART = 1000
#: Of the name of a predictor that is calibrated.
CALIBRATED = "_calibrated"
#: Directions of a layer that heads do not see; so many tell whether the images differ.
_FEW = 2
#: Components of a layer without places. With as few as of channels, masked ridge lost 0.8 % of its
#: error on one of four V4 sessions.
_WITHOUT_PLACE = 256


@dataclass(frozen=True)
class Scaling:
    """From recorded units to those of the score and back: (rate - offset) / scale, per site."""

    offset: np.ndarray
    scale: np.ndarray


@dataclass(frozen=True)
class FittedFold:
    """What is needed to export the predictor of a fold.

    Attributes:
        predictor: of the headline.
        bases: of all candidate layers, for dense heads and the ridge.
        channels: of all candidate layers, for spatial heads and the masked ridge; empty without them.
        offset, scale: from the targets to the recorded units.
        rates: of the held-out images, in recorded units: what the exported head has to give.
    """

    predictor: NrpPredictor
    bases: list[Basis]
    channels: list[ChannelBasis]
    offset: np.ndarray
    scale: np.ndarray
    rates: np.ndarray


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
        seen: of the candidate layers, where their features lie; empty where nothing sees places.
    """

    rates: np.ndarray
    regions: tuple[str, ...]
    region_names: tuple[str, ...]
    space: SearchSpace
    normalise: str
    seed: int
    n_seeds: int
    seen: Sequence[SeenLayer] = ()

    @property
    def sites_of_regions(self) -> list[np.ndarray]:
        """Places of the sites of each region."""
        region_of = np.array(self.regions)
        return [np.flatnonzero(region_of == name) for name in self.region_names]

    @property
    def headline(self) -> str:
        """The predictor whose error is the NRP-error."""
        return f"nrp+{self.path_name}" if self.space.mixes else "nrp"

    @property
    def path_name(self) -> str:
        """What stands beside the network."""
        return "masked_kernel" if self.space.masked and self.seen else "ridge"


@dataclass(frozen=True, eq=False)
class PreparedFold:
    """All of a fold but its heads.

    Attributes:
        targets: float64 (n_stimuli, n_sites), scaled rates.
        root: scaled square roots of the rates; None where rates may be negative, or are to be
            predicted as they are.
        bases, channels: of all candidate layers; see `FittedFold`.
        rates: of each baseline, for each variant of the responses, in the targets' units.
        path: what stands beside the network; None where the images are alike.
        fields: centre (x, y) and width of each site's mask, float64 (n_sites, 3); NaN where it sees
            the whole image alike; None without masks.
    """

    number: int
    fold: Fold
    scaling: Scaling
    targets: np.ndarray
    root: SquareRoot | None
    bases: list[Basis]
    channels: list[ChannelBasis]
    rates: dict[str, list[Rates]]
    path: LinearPath | KernelPath | None
    fields: np.ndarray | None

    def restore(self, predicted: np.ndarray) -> np.ndarray:
        """Scaled rates in recorded units."""
        rates: np.ndarray = predicted * self.scaling.scale + self.scaling.offset
        return rates

    def unroot(self, predicted: np.ndarray) -> np.ndarray:
        """Scaled roots as targets."""
        assert self.root is not None
        found: np.ndarray = (self.root.back(predicted) - self.scaling.offset) / self.scaling.scale
        return found


@dataclass(frozen=True)
class FoldFit:
    """What came of a fold.

    Attributes:
        predictions: of each predictor, float64 (n_new, n_sites), in recorded units; of those with
            heads, from the first seed.
        predictions_by_seed: of the headline predictor, by each seed.
        scale: (n_sites,), by which errors are divided to be in score units.
        n_directions: of each layer, in how many directions the training images differ.
        best: the chosen head, without its curves; the shares of the mixture; whether square roots of
            the rates were predicted.
        fields: see `PreparedFold`.
        fitted: of the first fold; None of the others, which are not exported.
    """

    predictions: dict[str, np.ndarray]
    predictions_by_seed: list[np.ndarray]
    scale: np.ndarray | float
    n_directions: list[int]
    best: dict[str, Any]
    fields: np.ndarray | None
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
    """Find what the heads see of each layer, and fit all other predictors.

    Args:
        layers: the span of the images in each layer, in the order of the stimuli.
        number: of the fold, from 0.
    """
    space, train, new = plan.space, fold.train, fold.new
    scaling = site_scaling(plan.rates[train], plan.normalise)
    targets = (plan.rates - scaling.offset) / scaling.scale
    root = SquareRoot.of(plan.rates[train]) if space.calibrate else None
    most = _FEW if space.masks else space.directions
    bases = map_on_cores(partial(fit_basis, train=train, most=most), layers)
    is_differing = [basis.n_directions > 0 for basis in bases]
    differing = [span for span, differs in zip(layers, is_differing, strict=True) if differs]
    variants = [targets[train]]
    if root is not None:
        variants.append(root.forward(plan.rates[train]))
    y, n_sites = np.hstack(variants), len(plan.regions)
    baselines = fit_baselines(differing, y, train, new, space.kernel_ridge, space.calibrate)
    prepared = PreparedFold(
        number=number,
        fold=fold,
        scaling=scaling,
        targets=targets,
        root=root,
        bases=bases,
        channels=_channels(plan, train),
        rates={},
        path=baselines.ridge.first_sites(n_sites) if baselines.ridge else None,
        fields=None,
    )
    for name, predicted in baselines.predictions.items():
        held_out = baselines.held_out.get(name, np.full(y.shape, np.nan))
        prepared.rates[name] = _by_variant(prepared, predicted, held_out)
    if not (space.masked and prepared.channels and differing):
        return prepared
    seen = [
        basis for basis, differs in zip(prepared.channels, is_differing, strict=True) if differs
    ]
    views = choose_views(seen, y, train, len(variants))
    linear, curved = fit_masked(seen, views * len(variants), y, train, new, arc_cosine)
    return _with_masked(prepared, seen, views, linear, curved)


def _channels(plan: FoldPlan, train: np.ndarray) -> list[ChannelBasis]:
    space = plan.space
    if not (space.masks or space.masked) or not plan.seen:
        return []
    fit = partial(fit_channels, train=train, most=space.channels, most_without=_WITHOUT_PLACE)
    return map_on_cores(fit, plan.seen)


def _by_variant(prepared: PreparedFold, predicted: np.ndarray, held_out: np.ndarray) -> list[Rates]:
    """Rates of all variants, side by side (n, n_variants * n_sites), as targets."""
    n_sites = prepared.targets.shape[1]
    found = [Rates(predicted[:, :n_sites], held_out[:, :n_sites])]
    if prepared.root is not None:
        turned = (prepared.unroot(x[:, n_sites:]) for x in (predicted, held_out))
        found.append(Rates(*turned))
    return found


def _with_masked(
    prepared: PreparedFold,
    seen: Sequence[ChannelBasis],
    views: Sequence[View],
    linear: MaskedRidge,
    curved: MaskedRidge,
) -> PreparedFold:
    """The fold with the masked fits; the kernel ridge of the recorded responses is the path."""
    train, new = prepared.fold.train, prepared.fold.new
    path = kernel_path(seen, curved.first_sites(len(views)), train)
    rates = dict(prepared.rates)
    rates["masked_ridge"] = _by_variant(prepared, linear.rates, linear.held_out)
    as_recorded, *others = _by_variant(prepared, curved.rates, curved.held_out)
    # As it is exported; the rates of the fit differ by the rounding of float32.
    of_path = path.rates([basis.coordinates[new] for basis in seen])
    rates["masked_kernel"] = [Rates(of_path, as_recorded.held_out), *others]
    return replace(prepared, rates=rates, path=path, fields=fields_of(views))


def fields_of(views: Sequence[View]) -> np.ndarray:
    """Centre (x, y) and width of masks, float64 (n_sites, 3); NaN for the whole image."""
    nowhere = (np.nan,) * 3
    masks = [MASKS[view.mask] for view in views]
    return np.array([nowhere if m is None else (m.x, m.y, m.width) for m in masks])


def fit_fold(
    plan: FoldPlan, prepared: PreparedFold, record: TrialRecord, advance: Callable[[int], None]
) -> FoldFit:
    """Search and train the NRP heads of a fold, and mix and calibrate what predicts.

    Args:
        record: trials that it holds are not trained again.
        advance: called with the number of heads that are done with.
    """
    number, space, fold = prepared.number, plan.space, prepared.fold
    recorded = prepared.targets[fold.train]
    predictions = {}
    for name, variants in prepared.rates.items():
        predictions[name] = variants[0].predicted
        if space.calibrate:
            predictions[name + CALIBRATED] = calibrate(variants, recorded)
    images = _search_images(plan, prepared)
    by_seed, first = [], None
    for repeat in range(plan.n_seeds):
        seed = plan.seed + _SEEDS_APART * repeat + number * _seeds_of_a_fold(space)
        heads = fit_heads(space, images, seed, advance, record, number)
        found, predictor, shares = _predict(plan, prepared, heads, images)
        by_seed.append(found[plan.headline])
        if first is None:
            first = heads, predictor, shares
            predictions |= found
    assert first is not None
    heads, predictor, shares = first
    restored = {name: prepared.restore(rates) for name, rates in predictions.items()}
    scaling = prepared.scaling
    return FoldFit(
        predictions=restored,
        predictions_by_seed=[prepared.restore(rates) for rates in by_seed],
        scale=scaling.scale if plan.normalise == "zscore" else 1.0,
        n_directions=[basis.n_directions for basis in prepared.bases],
        best={
            **_without_curves(record.row(number, heads.best)),
            "shares": shares,
            "square_roots": prepared.root is not None,
        },
        fields=prepared.fields,
        fitted=FittedFold(
            predictor,
            prepared.bases,
            prepared.channels,
            scaling.offset,
            scaling.scale,
            restored[plan.headline],
        )
        if number == 0
        else None,
    )


def _search_images(plan: FoldPlan, prepared: PreparedFold) -> SearchImages:
    """What the heads of a fold are trained on."""
    space, fold = plan.space, prepared.fold
    targets = prepared.targets
    if prepared.root is not None:
        targets = prepared.root.forward(plan.rates)
    if space.masks:
        seen = [basis.coordinates[..., : space.channels] for basis in prepared.channels]
        inputs = [torch.from_numpy(np.ascontiguousarray(x)) for x in seen]
        grids = [(basis.grid.height, basis.grid.width) for basis in prepared.channels]
    else:
        inputs = [torch.from_numpy(basis.coordinates) for basis in prepared.bases]
        grids = []
    parts = parts_of(fold, space.parts, plan.seed) if space.parts else []
    return SearchImages(
        inputs,
        torch.from_numpy(targets.astype(np.float32)),
        torch.from_numpy(fold.fit),
        torch.from_numpy(fold.validation),
        [torch.from_numpy(sites) for sites in plan.sites_of_regions],
        grids,
        [(torch.from_numpy(fit), torch.from_numpy(left_out)) for fit, left_out in parts],
    )


def _predict(
    plan: FoldPlan, prepared: PreparedFold, heads: FittedHeads, images: SearchImages
) -> tuple[dict[str, np.ndarray], NrpPredictor, dict[str, Any]]:
    """Rates of the test images by each predictor with heads, as targets; the headline's predictor."""
    space, fold = plan.space, prepared.fold
    recorded, n_sites = prepared.targets[fold.train], len(plan.regions)
    network = Rates(heads.rates(images.inputs, fold.new), heads.held_out)
    if prepared.root is not None:
        network = Rates(prepared.unroot(network.predicted), prepared.unroot(network.held_out))
    found = {"nrp": network.predicted}
    if space.calibrate:
        found["nrp" + CALIBRATED] = calibrate([network], recorded)
    share, path_share = np.ones(n_sites), np.zeros(n_sites)
    if space.mixes:
        path = Rates(np.zeros_like(network.predicted), np.zeros_like(recorded))
        if prepared.path is not None:
            path = prepared.rates[plan.path_name][0]
        mixture = mix(space.linear_shares, network, path, recorded, plan.sites_of_regions)
        share, path_share = mixture.share, mixture.path_share
        found[plan.headline] = mixture.rates.predicted
        if space.calibrate:
            found[plan.headline + CALIBRATED] = mixture.line(mixture.rates.predicted)
    predictor = NrpPredictor(
        layers=heads.layers,
        heads=heads.heads,
        root=prepared.root,
        path=prepared.path if path_share.any() else None,
        weight=share,
        path_weight=path_share,
    )
    first = [int(sites[0]) for sites in plan.sites_of_regions]
    shares = {
        name: {
            "nrp": float(share[site]),
            plan.path_name: float(path_share[site]),
            "mean": float(1 - share[site] - path_share[site]),
        }
        for name, site in zip(plan.region_names, first, strict=True)
    }
    return found, predictor, shares


def _seeds_of_a_fold(space: SearchSpace) -> int:
    """How far the seeds of two folds are apart; cross-fitted heads of all parts count on."""
    return max(1, space.parts * space.seeds)


def _without_curves(row: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in row.items() if key not in ("curve", "losses")}
