"""Splits of the images: K outer folds or one, and a validation set inside each training fold."""

from dataclasses import dataclass

import numpy as np
from sklearn.model_selection import KFold, StratifiedKFold, train_test_split

from nrp_onnx.errors import OptionError
from nrp_onnx.recordings import Recordings

VALIDATION_SHARE = 0.2
#: The paper's protocol holds one part of so many out.
PAPER_PARTS = 5


@dataclass(frozen=True)
class Fold:
    """Places of images: the held-out ones, and the training ones as ``fit`` and ``validation``."""

    test: np.ndarray
    fit: np.ndarray
    validation: np.ndarray

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
    return None if counts.min() < max(n_folds, 4) else classes


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


def _fold(train: np.ndarray, test: np.ndarray, labels: np.ndarray | None, seed: int) -> Fold:
    fit, validation = train_test_split(
        train,
        test_size=VALIDATION_SHARE,
        random_state=seed,
        stratify=None if labels is None else labels[train],
    )
    return Fold(test, np.sort(fit), np.sort(validation))
