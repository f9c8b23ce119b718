"""Splits of the images: K outer folds, one, or a fixed split; and a validation set in each training fold."""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from sklearn.model_selection import KFold, StratifiedKFold, train_test_split

from nrp_onnx.activations.layer_file import LayerActivations
from nrp_onnx.errors import OptionError, RecordingsError
from nrp_onnx.notes import Notes
from nrp_onnx.predictor.ridge import response_patterns
from nrp_onnx.recordings import Recordings
from nrp_onnx.recordings.fixed_splits import FixedSplit

VALIDATION_SHARE = 0.2
#: The paper's protocol holds one part of so many out.
PAPER_PARTS = 5
#: From so many patterns of missing responses on, a note says that fitting takes long.
_MANY_PATTERNS = 8
_IMAGES_A_BLOCK = 512
#: Images that a predictor of all images is checked on.
_CHECKED = 16


@dataclass(frozen=True)
class Fold:
    """Places of images: the held-out ones, and the training ones as ``fit`` and ``validation``.

    Attributes:
        ood: held-out images from another distribution, which are scored apart.
        is_fixed: whether the recordings say so. Their test images are of another kind than the others
            then, often repeated more, so that reliability is theirs alone.
    """

    test: np.ndarray
    fit: np.ndarray
    validation: np.ndarray
    ood: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))
    is_fixed: bool = False

    @property
    def new(self) -> np.ndarray:
        """All images that are predicted: those of the test, then those out of distribution."""
        return np.concatenate([self.test, self.ood])

    @property
    def train(self) -> np.ndarray:
        return np.sort(np.concatenate([self.fit, self.validation]))


def stratification(recordings: Recordings, n_folds: int) -> np.ndarray | None:
    """The labels to stratify on, or None where there are none or a class is too small."""
    labels = recordings.stimulus_labels.get(recordings.stratification_label)
    if labels is None:
        return None
    _, classes, counts = np.unique(labels, return_inverse=True, return_counts=True)
    # Each class must reach every fold, and then both parts of its training images.
    n_train = len(classes) - math.ceil(len(classes) / n_folds)
    too_few = math.ceil(VALIDATION_SHARE * n_train) < len(counts)
    return None if too_few or counts.min() < max(n_folds, 4) else classes


def outer_folds(recordings: Recordings, n_folds: int, seed: int) -> list[Fold]:
    """K folds over the images; each image is held out once.

    Raises:
        OptionError: if there are too few images for that many folds.
    """
    n = recordings.n_stimuli
    if not 2 <= n_folds <= n // 4:
        raise OptionError(
            "this number of folds does not fit",
            where="--folds",
            expected=f"2 to {n // 4} for {n} stimuli",
            found=n_folds,
        )
    labels = stratification(recordings, n_folds)
    kind = KFold if labels is None else StratifiedKFold
    splits = kind(n_folds, shuffle=True, random_state=seed).split(np.zeros(n), labels)
    return [_fold(train, test, labels, seed) for train, test in splits]


def held_out_split(recordings: Recordings, seed: int) -> list[Fold]:
    """One fold, as in the paper: a fifth of the images, stratified, is held out once and for all.

    Raises:
        OptionError: if there are too few images.
    """
    n = recordings.n_stimuli
    if n < 8:
        raise OptionError(
            "there are too few images to hold a fifth of them out",
            where="--protocol paper",
            expected="8 stimuli or more",
            found=n,
        )
    labels = stratification(recordings, PAPER_PARTS)
    train, test = train_test_split(
        np.arange(n), test_size=1 / PAPER_PARTS, random_state=seed, stratify=labels
    )
    return [_fold(np.sort(train), np.sort(test), labels, seed)]


def fixed_split(recordings: Recordings, split: FixedSplit, seed: int) -> list[Fold]:
    """One fold: the split that the recordings name; a fifth of its training images validates."""
    place_of = {name: place for place, name in enumerate(recordings.stimulus_ids)}
    train, test, ood = (
        np.array(sorted(place_of[name] for name in ids), np.int64)
        for ids in (split.train, split.test, split.ood)
    )
    return [replace(_fold(train, test, None, seed), ood=ood, is_fixed=True)]


def all_images(fold: Fold, seed: int) -> Fold:
    """Train on every image that has a part in the folds; a few of them are predicted, as a check.

    Args:
        fold: one of the folds.
    """
    every = np.sort(np.concatenate([fold.train, fold.new]))
    return replace(_fold(every, every[:_CHECKED], None, seed), is_fixed=True)


def held_out_alone(
    recordings: Recordings, folds: list[Fold], kept: np.ndarray
) -> tuple[Recordings, list[Fold]]:
    """Recordings and folds of the held-out images of a fixed split; of all images without one.

    Args:
        kept: places of the held-out images.
    """
    if not folds[0].is_fixed:
        return recordings, folds
    names = {recordings.stimulus_ids[place] for place in kept}
    others = {name for name in recordings.stimulus_ids if name not in names}
    none = np.empty(0, np.int64)
    test, ood = (np.searchsorted(kept, places) for places in (folds[0].test, folds[0].ood))
    return recordings.without_stimuli(others), [Fold(test, none, none, ood, is_fixed=True)]


def _fold(train: np.ndarray, test: np.ndarray, labels: np.ndarray | None, seed: int) -> Fold:
    fit, validation = train_test_split(
        train,
        test_size=VALIDATION_SHARE,
        random_state=seed,
        stratify=None if labels is None else labels[train],
    )
    return Fold(test, np.sort(fit), np.sort(validation))


def parts_of(fold: Fold, n_parts: int, seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Parts of the training images that are left out in turn: the others, and the part.

    Args:
        n_parts: 2 or more; fewer where there are too few training images.
    """
    train = fold.train
    parts = KFold(min(n_parts, len(train)), shuffle=True, random_state=seed)
    return [(train[fit], train[left_out]) for fit, left_out in parts.split(train)]


def note_on_duplicates(
    layers: Sequence[LayerActivations], fold: Fold, stimulus_ids: Sequence[str]
) -> str | None:
    """A line about held-out images of a fixed split that are training images, too; None without any.

    The same picture gives the same activations, whatever its file: compared in the smallest layer.
    """
    layer = min(layers, key=lambda one: one.shape[1])
    places_of: dict[bytes, int] = {}
    twins = []
    for places in np.array_split(fold.train, -(-len(fold.train) // _IMAGES_A_BLOCK)):
        for place, row in zip(places, layer.read(places), strict=True):
            places_of[_digest(row)] = place
    for places in np.array_split(fold.new, -(-len(fold.new) // _IMAGES_A_BLOCK)):
        for place, row in zip(places, layer.read(places), strict=True):
            if (twin := places_of.get(_digest(row))) is not None:
                twins.append((stimulus_ids[place], stimulus_ids[twin]))
    # A layer that is the same for every image tells nothing.
    if not twins or len(places_of) == 1:
        return None
    named = ", ".join(f"{held_out!r} is {train!r}" for held_out, train in twins[:3])
    more = f" and {len(twins) - 3} more" if len(twins) > 3 else ""
    return (
        f"{len(twins)} of {len(fold.new):,} held-out images are also training images ({named}{more}): "
        "the error is too small. Take them out of the split."
    )


def _digest(row: np.ndarray) -> bytes:
    return hashlib.sha256(np.ascontiguousarray(row).tobytes()).digest()


def check_responses(recordings: Recordings, folds: list[Fold], notes: Notes) -> None:
    """See that every site can be fitted and every region scored; say where fitting takes long.

    Raises:
        RecordingsError: if a site has no response to the ``fit`` images of a fold, or a region none
            to the held-out images.
    """
    known = ~np.isnan(recordings.averages)
    for number, fold in enumerate(folds):
        if (silent := np.flatnonzero(~known[fold.fit].any(axis=0))).size:
            counts = known.sum(axis=0)
            named = [f"{recordings.site_ids[site]!r} with {counts[site]}" for site in silent[:3]]
            more = f" and {silent.size - 3} more" if silent.size > 3 else ""
            raise RecordingsError(
                f"sites without a response to the training images of fold {number}",
                where=recordings.name,
                expected=f"a response of each site to one or more of its {len(fold.fit)} images",
                found=f"responses to {recordings.n_stimuli} images: {', '.join(named)}{more}",
                fix="Import the recordings again without these sites, or try another --seed.",
            )
    held_out = np.concatenate([fold.test for fold in folds])
    for region in recordings.region_names:
        sites = np.array(recordings.regions) == region
        if not known[np.ix_(held_out, sites)].any():
            raise RecordingsError(
                f"the region {region} has no response to the held-out images",
                where=recordings.name,
                expected=f"a response to one or more of {len(held_out)} images",
                fix="Leave the region out with --regions, or try another --seed.",
            )
    n_patterns = max(sum(1 for _ in response_patterns(known[fold.train])) for fold in folds)
    if n_patterns >= _MANY_PATTERNS:
        notes.say(
            f"responses are missing in {n_patterns} patterns, and sites with the same pattern are "
            f"fitted together: the baselines take up to {n_patterns} times as long as with none missing"
        )
