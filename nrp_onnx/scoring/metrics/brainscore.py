"""The score of Brain-Score's neural benchmarks, on the same activations as the NRP-error.

Schrimpf et al. (2018), "Brain-Score: Which artificial neural network for object recognition is most
brain-like?": PLS regression with 25 components, cross-validated over images, the correlation with
each site's responses, and the ceiling that the trial noise sets.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from sklearn.model_selection import ShuffleSplit, StratifiedShuffleSplit

from nrp_onnx.notes import Notes
from nrp_onnx.predictor.baselines import predict_pls
from nrp_onnx.predictor.directions import Basis
from nrp_onnx.predictor.image_products import LayerSpan, coordinates, joined_products
from nrp_onnx.predictor.ridge import response_patterns
from nrp_onnx.recordings import Recordings, split_half_reliability
from nrp_onnx.scoring.result import BrainScore
from nrp_onnx.scoring.splits import Fold
from nrp_onnx.statistics import pearson_r
from nrp_onnx.threads import map_on_cores

#: Those of Brain-Score, whatever the seed of the run.
N_SPLITS, TRAIN_SHARE, SEED = 10, 0.9, 1


@dataclass(frozen=True, eq=False)
class Splits:
    """Places of training and test images, and the label that they are stratified on.

    Attributes:
        is_fixed: whether they are those of a fixed split of the recordings. The ceiling is that of the
            test images alone then.
    """

    places: list[tuple[np.ndarray, np.ndarray]]
    stratified_on: str | None
    is_fixed: bool = False


def coordinates_of_layers(layers: Sequence[LayerSpan], n_images: int) -> np.ndarray:
    """What PLS sees of the layers side by side, as they are: float32 (n_images, r).

    Args:
        layers: in which the stimuli differ.
    """
    return coordinates(joined_products(layers)) if layers else np.zeros((n_images, 0), np.float32)


def joined_coordinates(bases: Sequence[Basis]) -> np.ndarray:
    """The same in the leading directions of each layer, where images are many."""
    return np.hstack([np.asarray(basis.coordinates) / np.float32(basis.scale) for basis in bases])


def brainscore_of_regions(
    x: np.ndarray, recordings: Recordings, splits: Splits
) -> dict[str, BrainScore]:
    """Brain-Score's neural score of each region.

    In each split, PLS is fitted on the training images, all sites of a region jointly, centred and
    not scaled (sites that miss the same images go together), and predicts the others: r is the median
    over sites of Pearson's r, averaged over splits. The ceiling is the median over sites of the
    split-half reliability, averaged over as many splits of the repetitions. The score is the share of
    the explainable variance, r^2 / ceiling.

    Args:
        x: what PLS sees of all layers side by side, float32 (n_stimuli, r).
        splits: of `choose_splits`.

    Returns:
        Of each region; ``error`` is that of r: the standard deviation over splits, by the root of
        their number.
    """
    n_splits = len(splits.places)
    r_of_sites = np.array(map_on_cores(partial(_r_of_split, x, recordings), splits.places))
    repeated, n_halves = recordings, n_splits
    if splits.is_fixed:
        n_halves = N_SPLITS
        test = {recordings.stimulus_ids[place] for place in splits.places[0][1]}
        repeated = recordings.without_stimuli(set(recordings.stimulus_ids) - test)
    reliability = split_half_reliability(repeated, SEED, n_halves)
    found = {}
    for region in recordings.region_names:
        sites = np.array(recordings.regions) == region
        r, ceiling = _medians(r_of_sites[:, sites]), _medians(reliability[:, sites])
        found[region] = _score(r, ceiling, splits)
    return found


def choose_splits(
    recordings: Recordings, notes: Notes, n_splits: int = N_SPLITS, fixed: Fold | None = None
) -> Splits:
    """Brain-Score's splits of the images: nine tenths and a tenth, stratified where that is possible.

    Args:
        notes: is told if it is not.
        fixed: a fixed split of the recordings, which takes the place of others.
    """
    if fixed is not None:
        return Splits([(fixed.train, fixed.test)], None, is_fixed=True)
    n, label = recordings.n_stimuli, recordings.stratification_label
    labels = recordings.stimulus_labels.get(label)
    kind = ShuffleSplit
    if labels is not None:
        classes, counts = np.unique(labels, return_counts=True)
        n_train = int(TRAIN_SHARE * n)
        if counts.min() >= 2 and len(classes) <= min(n_train, n - n_train):
            kind = StratifiedShuffleSplit
    if kind is ShuffleSplit:
        notes.say(
            f"the splits of brainscore are not stratified: no {label} labels, or too few of a class"
        )
    splitter = kind(n_splits, train_size=TRAIN_SHARE, random_state=SEED)
    places = list(splitter.split(np.zeros(n), labels if kind is not ShuffleSplit else None))
    return Splits(places, None if kind is ShuffleSplit else label)


def _r_of_split(
    x: np.ndarray, recordings: Recordings, split: tuple[np.ndarray, np.ndarray]
) -> np.ndarray:
    """Pearson's r of each site on the test images, float64 (n_sites,)."""
    train, test = split
    rates, region_of = recordings.averages, np.array(recordings.regions)
    predicted = np.zeros((len(test), recordings.n_sites))
    for region in recordings.region_names if x.shape[1] else ():
        sites = np.flatnonzero(region_of == region)
        recorded = rates[np.ix_(train, sites)]
        for rows, group in response_patterns(~np.isnan(recorded)):
            y = recorded[np.ix_(rows, group)]
            # Neither changes r: all sites of the group are divided by the same number.
            y = (y - y.mean(axis=0)) / (y.std() or 1.0)
            if y.any():
                new = predict_pls(x[train[rows]], y.astype(np.float32), x[test])
                predicted[:, sites[group]] = new
    return pearson_r(predicted, rates[test])


def _medians(of_sites: np.ndarray) -> np.ndarray:
    """Median over sites of the splits that have one, float64 (at most n_splits,)."""
    known = of_sites[~np.isnan(of_sites).all(axis=1)]
    medians: np.ndarray = np.nanmedian(known, axis=1) if len(known) else np.empty(0)
    return medians


def _score(r: np.ndarray, ceilings: np.ndarray, splits: Splits) -> BrainScore:
    mean_r = float(r.mean()) if len(r) else None
    ceiling = float(ceilings.mean()) if len(ceilings) else None
    if ceiling is None:
        reason = "no site has three stimuli with two repetitions"
    elif ceiling <= 0:
        reason = "the responses do not repeat: the ceiling is not over 0"
    elif mean_r is None:
        reason = "the predictions never vary, or too few images are held out"
    else:
        reason = None
    return BrainScore(
        score=mean_r**2 / ceiling if reason is None else None,  # type: ignore[operator]
        # One split has no spread.
        error=float(r.std() / np.sqrt(len(r))) if len(r) > 1 else None,
        r=mean_r,
        ceiling=ceiling,
        reason=reason,
        n_splits=len(splits.places),
        stratified_on=splits.stratified_on,
    )
