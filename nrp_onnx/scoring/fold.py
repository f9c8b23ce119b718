"""Trains the heads of a fold, mixes and calibrates them, and predicts the held-out images."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nrp_onnx.predictor.calibration import Rates, calibrate
from nrp_onnx.predictor.channels import ChannelBasis
from nrp_onnx.predictor.directions import Basis
from nrp_onnx.predictor.nrp_predictor import FittedHeads, NrpPredictor, fit_heads, mix
from nrp_onnx.predictor.rows_on_disk import RowsOnDisk
from nrp_onnx.predictor.search import SearchImages
from nrp_onnx.predictor.search_space import SearchSpace
from nrp_onnx.predictor.trials import TrialRecord
from nrp_onnx.scoring.prepared_fold import CALIBRATED, FoldPlan, PreparedFold
from nrp_onnx.scoring.splits import parts_of

#: Between the seeds of two repeats: more than the folds and the heads of an ensemble take.
_SEEDS_APART = 1000


@dataclass(frozen=True)
class FittedFold:
    """What is needed to export the predictor of a fold.

    Attributes:
        predictor: of the headline.
        bases: of all candidate layers, for dense heads and the ridge.
        whole: of fits on features, the bases with all their directions; else empty.
        channels: of all candidate layers, for spatial heads and the masked ridge; empty without them.
        offset, scale: from the targets to the recorded units.
        rates: of the held-out images, in recorded units: what the exported head has to give.
    """

    predictor: NrpPredictor
    bases: list[Basis]
    whole: list[Basis]
    channels: list[ChannelBasis]
    offset: np.ndarray
    scale: np.ndarray
    rates: np.ndarray


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


def fit_fold(
    plan: FoldPlan, prepared: PreparedFold, record: TrialRecord, advance: Callable[[int], None]
) -> FoldFit:
    """Search and train the NRP heads of a fold, and mix and calibrate what predicts.

    Args:
        record: trials that it holds are not trained again.
        advance: called with the number of heads that are done with.
    """
    number, space = prepared.number, plan.space
    predictions = dict(prepared.predictions)
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
            prepared.whole,
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
        inputs = [_input_of(basis.coordinates, space.channels) for basis in prepared.channels]
        grids = [(basis.grid.height, basis.grid.width) for basis in prepared.channels]
    else:
        inputs = [_input_of(basis.coordinates, None) for basis in prepared.bases]
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
        plan.device,
    )


def _input_of(coordinates: np.ndarray | RowsOnDisk, most: int | None) -> Tensor | RowsOnDisk:
    """Of all images, the first coordinates of a layer; those on disk stay there."""
    if isinstance(coordinates, RowsOnDisk):
        if most is None or coordinates.shape[-1] <= most:
            return coordinates
        coordinates = np.asarray(coordinates)
    return torch.from_numpy(np.ascontiguousarray(coordinates[..., :most]))


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
        if prepared.path is not None and prepared.path_rates is not None:
            path = prepared.path_rates
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
