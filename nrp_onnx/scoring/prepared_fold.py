"""All of a training fold but its heads: what heads see of each layer, baselines, masked fits.

Fits are on inner products of the images; where images are many, on features.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np

from nrp_onnx.activations.layer_file import LayerActivations
from nrp_onnx.predictor.baselines import Baselines, arc_cosine, fit_baselines
from nrp_onnx.predictor.calibration import Rates, SquareRoot, calibrate
from nrp_onnx.predictor.channels import ChannelBasis, SeenLayer, fit_channels
from nrp_onnx.predictor.directions import Basis, fit_basis, fit_sampled_basis
from nrp_onnx.predictor.image_products import LayerSpan
from nrp_onnx.predictor.kernel_path import KernelPath, kernel_path
from nrp_onnx.predictor.linear_path import LinearPath, PrimalPath, joined_path
from nrp_onnx.predictor.masked_ridge import (
    choose_views,
    fit_masked,
    fit_masked_by_landmarks,
)
from nrp_onnx.predictor.masks import MASKS, View
from nrp_onnx.predictor.memory import PrimalSizes
from nrp_onnx.predictor.nystroem import draw_landmarks
from nrp_onnx.predictor.primal_baselines import (
    JoinedFeatures,
    KernelOnFeatures,
    LinearOnFeatures,
)
from nrp_onnx.predictor.search_space import SearchSpace
from nrp_onnx.scoring.splits import Fold
from nrp_onnx.threads import map_on_cores

#: Of the name of a predictor that is calibrated.
CALIBRATED = "_calibrated"
#: Directions of a layer that heads do not see; so many tell whether the images differ.
_FEW = 2
#: Components of a layer without places. With as few as of channels, masked ridge lost 0.8 % of its
#: error on one of four V4 sessions.
_WITHOUT_PLACE = 256
#: Bytes of the held-out rates of a block of sites, and how many arrays of them the baselines make.
_HELD_OUT_BYTES, _HELD_OUT = 2**29, 8


@dataclass(frozen=True)
class Scaling:
    """From recorded units to those of the score and back: (rate - offset) / scale, per site."""

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
        seen: of the candidate layers, where their features lie; empty where nothing sees places.
        primal: sizes of fits on features, where images are many; None: fits are on inner products of
            the images.
        activations: of the candidate layers, for fits on features.
        device: where heads train.
        folder: where fits on features keep coordinates of the images; None: in memory.
    """

    rates: np.ndarray
    regions: tuple[str, ...]
    region_names: tuple[str, ...]
    space: SearchSpace
    normalise: str
    seed: int
    n_seeds: int
    seen: Sequence[SeenLayer] = ()
    primal: PrimalSizes | None = None
    activations: Sequence[LayerActivations] = ()
    device: str = "cpu"
    folder: Path | None = None

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
        whole: the bases of fits on features, with all their directions; heads may see fewer.
        predictions: of the new images by each predictor without heads, float64 (n_new, n_sites), in the
            targets' units; as they are, and calibrated.
        path_rates: of what stands beside the network.
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
    whole: list[Basis] = field(default_factory=list)
    predictions: dict[str, np.ndarray] = field(default_factory=dict)
    path_rates: Rates | None = None
    path: LinearPath | PrimalPath | KernelPath | None = None
    fields: np.ndarray | None = None

    def restore(self, predicted: np.ndarray) -> np.ndarray:
        """Scaled rates in recorded units."""
        rates: np.ndarray = predicted * self.scaling.scale + self.scaling.offset
        return rates

    def unroot(self, predicted: np.ndarray) -> np.ndarray:
        """Scaled roots as targets."""
        assert self.root is not None
        found: np.ndarray = (self.root.back(predicted) - self.scaling.offset) / self.scaling.scale
        return found

    def of_sites(self, sites: np.ndarray) -> "PreparedFold":
        """The same for some sites, without predictions."""
        scaling = Scaling(self.scaling.offset[sites], self.scaling.scale[sites])
        root = None if self.root is None else self.root.of_sites(sites)
        return replace(
            self, scaling=scaling, targets=self.targets[:, sites], root=root, predictions={}
        )

    def variants(self) -> np.ndarray:
        """What is fitted to: the training targets, and beside them their roots, where there are any."""
        recorded = self.targets[self.fold.train]
        if self.root is None:
            same: np.ndarray = recorded
            return same
        both = [recorded, self.root.forward(self.restore(recorded))]
        variants: np.ndarray = np.hstack(both)
        return variants

    def by_variant(self, predicted: np.ndarray, held_out: np.ndarray) -> list[Rates]:
        """Rates of all variants, side by side (n, n_variants * n_sites), as targets."""
        n_sites = self.targets.shape[1]
        found = [Rates(predicted[:, :n_sites], held_out[:, :n_sites])]
        if self.root is not None:
            turned = (self.unroot(x[:, n_sites:]) for x in (predicted, held_out))
            found.append(Rates(*turned))
        return found


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
        layers: the span of the images in each layer, in the order of the stimuli; none for fits on
            features.
        number: of the fold, from 0.
    """
    space, train = plan.space, fold.train
    scaling = site_scaling(plan.rates[train], plan.normalise)
    prepared = PreparedFold(
        number=number,
        fold=fold,
        scaling=scaling,
        targets=(plan.rates - scaling.offset) / scaling.scale,
        root=SquareRoot.of(plan.rates[train]) if space.calibrate else None,
        bases=_bases(plan, layers, train),
        channels=[],
    )
    is_differing = [basis.n_directions > 0 for basis in prepared.bases]
    if plan.primal is None:
        differing = [span for span, differs in zip(layers, is_differing, strict=True) if differs]
        prepared = _with_baselines(plan, prepared, differing)
    else:
        prepared = _with_primal_baselines(plan, prepared, plan.primal)
        most = None if space.masks else space.directions
        of_heads = [basis.leading(most) for basis in prepared.bases]
        prepared = replace(prepared, bases=of_heads, whole=prepared.bases)
    prepared = replace(prepared, channels=_channels(plan, train))
    if not (space.masked and prepared.channels and any(is_differing)):
        return prepared
    seen = [
        basis for basis, differs in zip(prepared.channels, is_differing, strict=True) if differs
    ]
    return _with_masked(plan, prepared, seen)


def _bases(plan: FoldPlan, layers: Sequence[LayerSpan], train: np.ndarray) -> list[Basis]:
    """Of each layer the directions that heads, or fits on features, see."""
    if plan.primal is not None:
        sample = draw_landmarks(train, plan.primal.landmarks)
        most = plan.primal.directions
        return [
            fit_sampled_basis(layer, train, sample, most, plan.folder) for layer in plan.activations
        ]
    few = _FEW if plan.space.masks else plan.space.directions
    return map_on_cores(partial(fit_basis, train=train, most=few), layers)


def _channels(plan: FoldPlan, train: np.ndarray) -> list[ChannelBasis]:
    space = plan.space
    if not (space.masks or space.masked) or not plan.seen:
        return []
    most = space.channels if plan.primal is None else min(space.channels, plan.primal.channels)
    fit = partial(fit_channels, train=train, most=most, most_without=_WITHOUT_PLACE)
    if plan.primal is not None:  # one at a time: each is large
        return [fit(layer, folder=plan.folder) for layer in plan.seen]
    return map_on_cores(fit, plan.seen)


def _with_baselines(
    plan: FoldPlan, prepared: PreparedFold, differing: Sequence[LayerSpan]
) -> PreparedFold:
    """The fold with the baselines, on inner products of the images."""
    space, fold = plan.space, prepared.fold
    collected = _Collected(plan, prepared)
    for sites in collected.blocks():
        y = prepared.of_sites(sites).variants()
        collected.take(
            sites,
            fit_baselines(differing, y, fold.train, fold.new, space.kernel_ridge, space.calibrate),
        )
    return collected.fold()


def _with_primal_baselines(
    plan: FoldPlan, prepared: PreparedFold, sizes: PrimalSizes
) -> PreparedFold:
    """The fold with the baselines, on features."""
    space, fold = plan.space, prepared.fold
    collected = _Collected(plan, prepared)
    differing = [basis for basis in prepared.bases if basis.n_directions]
    if not differing:
        return _with_baselines(plan, prepared, [])
    joined = JoinedFeatures.of(differing, fold.train)
    linear = LinearOnFeatures(joined, fold.train, fold.new, space.calibrate)
    for sites in collected.blocks():
        collected.take(sites, linear.fit(prepared.of_sites(sites).variants()))
    del linear
    if space.kernel_ridge:
        landmarks = draw_landmarks(fold.train, sizes.landmarks)
        kernel = KernelOnFeatures(joined, fold.train, fold.new, landmarks)
        for sites in collected.blocks():
            found = kernel.fit(prepared.of_sites(sites).variants())
            collected.take(sites, Baselines(*found, None))
    return collected.fold()


class _Collected:
    """Predictions of blocks of sites, put together: held-out rates of all sites would be many.

    Args:
        prepared: of all sites.
    """

    def __init__(self, plan: FoldPlan, prepared: PreparedFold) -> None:
        self._plan, self._prepared = plan, prepared
        self._paths: list[LinearPath | PrimalPath] = []
        self._predictions: dict[str, np.ndarray] = {}
        self._path_rates: list[Rates] = []

    def blocks(self) -> list[np.ndarray]:
        """Places of the sites of each block."""
        train, n_sites = self._prepared.fold.train, self._prepared.targets.shape[1]
        n_variants = 1 if self._prepared.root is None else 2
        at_once = max(1, _HELD_OUT_BYTES // (_HELD_OUT * 8 * n_variants * len(train)))
        return np.array_split(np.arange(n_sites), -(-n_sites // at_once))

    def take(self, sites: np.ndarray, found: Baselines) -> None:
        """Take the fits of a block; each predictor is calibrated there where all may be."""
        block = self._prepared.of_sites(sites)
        recorded = block.targets[block.fold.train]
        none = np.full(block.variants().shape, np.nan) if found.predictions else np.empty((0, 0))
        for name, predicted in found.predictions.items():
            variants = block.by_variant(predicted, found.held_out.get(name, none))
            self._put(name, sites, variants[0].predicted)
            if self._plan.space.calibrate:
                self._put(name + CALIBRATED, sites, calibrate(variants, recorded))
            if name == self._plan.path_name:
                self._path_rates.append(variants[0])
        if found.ridge is not None:
            self._paths.append(found.ridge.first_sites(len(sites)))

    def _put(self, name: str, sites: np.ndarray, rates: np.ndarray) -> None:
        shape = len(rates), self._prepared.targets.shape[1]
        self._predictions.setdefault(name, np.empty(shape))[:, sites] = rates

    def fold(self) -> PreparedFold:
        """The fold with what was taken."""
        rates = self._path_rates
        beside = None
        if rates:
            beside = Rates(
                np.hstack([x.predicted for x in rates]), np.hstack([x.held_out for x in rates])
            )
        path = joined_path(self._paths) if self._paths else None
        return replace(self._prepared, predictions=self._predictions, path_rates=beside, path=path)


def _with_masked(
    plan: FoldPlan, prepared: PreparedFold, seen: Sequence[ChannelBasis]
) -> PreparedFold:
    """The fold with the masked fits; the kernel ridge of the recorded responses is the path."""
    fold, collected = prepared.fold, _Collected(plan, prepared)
    train, new, n_sites = fold.train, fold.new, prepared.targets.shape[1]
    y = prepared.variants() if plan.primal is None else _all_variants(prepared, collected.blocks())
    n_variants = y.shape[1] // n_sites
    most = len(MASKS) if plan.primal is None else plan.primal.views
    views = choose_views(seen, y, train, n_variants, most)
    if plan.primal is None:
        known = train
        linear, curved = fit_masked(seen, views * n_variants, y, train, new, arc_cosine)
    else:
        known = draw_landmarks(train, plan.primal.landmarks)
        linear, curved = fit_masked_by_landmarks(seen, views * n_variants, y, train, new, known)
    path = kernel_path(seen, curved.first_sites(n_sites), known)
    del y
    # As it is exported; the rates of the fit differ by the rounding of float32.
    as_exported = path.rates([basis.coordinates[new] for basis in seen])
    curved.rates[:, :n_sites] = as_exported
    for sites in collected.blocks():
        both = np.concatenate([sites + n_sites * variant for variant in range(n_variants)])
        found = {
            name: (fit.rates[:, both], fit.held_out[:, both])
            for name, fit in (("masked_ridge", linear), ("masked_kernel", curved))
        }
        collected.take(
            sites,
            Baselines(
                {name: rates for name, (rates, _) in found.items()},
                {name: left_out for name, (_, left_out) in found.items()},
                None,
            ),
        )
    with_both = collected.fold()
    return replace(
        with_both,
        predictions=prepared.predictions | with_both.predictions,
        path=path,
        fields=fields_of(views),
    )


def _all_variants(prepared: PreparedFold, blocks: Sequence[np.ndarray]) -> np.ndarray:
    """`PreparedFold.variants` in float32, made of blocks of sites."""
    n_sites = prepared.targets.shape[1]
    n_variants = 1 if prepared.root is None else 2
    y = np.empty((len(prepared.fold.train), n_variants * n_sites), np.float32)
    for sites in blocks:
        found = prepared.of_sites(sites).variants()
        for variant, of_variant in enumerate(np.split(found, n_variants, axis=1)):
            y[:, sites + n_sites * variant] = of_variant
    return y


def fields_of(views: Sequence[View]) -> np.ndarray:
    """Centre (x, y) and width of masks, float64 (n_sites, 3); NaN for the whole image."""
    nowhere = (np.nan,) * 3
    masks = [MASKS[view.mask] for view in views]
    return np.array([nowhere if m is None else (m.x, m.y, m.width) for m in masks])
