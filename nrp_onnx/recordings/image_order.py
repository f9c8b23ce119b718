"""Whether responses belong to the images that they are paired with, seen from the data themselves.

Sites of the visual system follow simple features of images a little: colours, brightness, contrast.
Ridge regression on such features predicts responses of left-out images, unless the order is wrong.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import scipy.linalg
from PIL import Image

from nrp_onnx.notes import Notes
from nrp_onnx.recordings.recordings import Recordings
from nrp_onnx.recordings.reliability import site_reliability

#: Of fewer images even the right order may show nothing.
FEWEST_IMAGES = 100
#: By how many standard deviations the right order is better than ones that are shuffled among
#: neighbours. On four sessions of V4 it was 26 to 40 with 640 to 1,200 images, and 4.1 to 10 with 100
#: of them; 24 wrong orders, some within blocks of 100 or 300 images, had at most 2.4.
_LEAST_Z = 3.0
#: Sessions show images of one kind after another: an order that is wrong within each kind still fits
#: better than one that mixes them, so it is compared with shuffles of this many neighbours.
_NEIGHBOURS = 50
_MOST_IMAGES, _MOST_SITES = 1500, 64
#: Sites that hardly repeat follow no image in any order.
_LEAST_RELIABILITY = 0.3
_N_SHUFFLED, _N_FOLDS, _SEED = 50, 5, 0
_RIDGE = 10.0
_COLOURS, _BLOCKS, _PIXELS = 8, 4, 32


@dataclass(frozen=True)
class ImageOrder:
    """What simple features of images say of the order.

    Attributes:
        n_images: how many were looked at.
        r: the mean over sites of the correlation of left-out responses with their predictions.
        z: by how many standard deviations ``r`` exceeds that of orders shuffled among neighbours.
        better: the order that fits clearly better, in words; None if none does.
        better_r: its ``r``.
    """

    n_images: int
    r: float
    z: float
    better: str | None = None
    better_r: float | None = None

    @property
    def looks_wrong(self) -> bool:
        return self.better is not None or self.z < _LEAST_Z

    def to_json(self) -> dict[str, Any]:
        return {**vars(self), "looks_wrong": self.looks_wrong}


def check_image_order(
    recordings: Recordings, reliability: np.ndarray | None, notes: Notes
) -> dict[str, Any]:
    """Look at the order of the images, and warn where it looks wrong.

    Where stimuli have the label ``split``, each part of 100 images or more is looked at by itself.

    Args:
        recordings: whose images are there.
        reliability: float64 array of shape (n_sites,), where it is known: the most reliable sites
            are taken. Else it is computed where there are repetitions.
        notes: are told of an order that looks wrong.

    Returns:
        What was found, by part, as JSON.
    """
    places = _sites(recordings, reliability)
    chosen = recordings.select_sites(places)
    known = site_reliability(chosen) if reliability is None else reliability[places]
    found: dict[str, Any] = {}
    if not np.isnan(known).all() and np.nanquantile(known, 0.9) < _LEAST_RELIABILITY:
        return found
    averages = chosen.averages
    split = np.array(recordings.stimulus_labels.get("split", ("",) * recordings.n_stimuli))
    for part in dict.fromkeys(split.tolist()):
        rows = np.flatnonzero(split == part)
        if len(rows) < FEWEST_IMAGES:
            continue
        rows = _runs(rows)
        paths = [recordings.stimulus_paths[row] for row in rows]
        order = measure_order(image_features(paths), averages[rows], [path.name for path in paths])
        name = part or "all"
        found[name] = order.to_json()
        if order.looks_wrong:
            notes.say(_in_words(order, f" of the part {name}" if part else "", known))
    return found


def measure_order(features: np.ndarray, responses: np.ndarray, names: Sequence[str]) -> ImageOrder:
    """Measure how well an order of images fits responses, and look for a better one.

    Args:
        features: float64 array of shape (n_images, n_features).
        responses: float64 array of shape (n_images, n_sites), in the same order; NaN is missing.
        names: of the images' files, in the same order.
    """
    targets = _standardised(responses)
    targets = targets[:, (targets != 0).any(axis=0)]
    n = len(targets)
    rng = np.random.default_rng(_SEED)
    predict = _left_out_predictions(features, rng.permutation(n) % _N_FOLDS)

    def fit(order: np.ndarray) -> float:
        """Where image order[i] belongs to the responses i."""
        paired = np.empty_like(targets)
        paired[order] = targets
        return _mean_r(predict(paired), paired)

    shuffled = np.array([fit(_among_neighbours(n, rng)) for _ in range(_N_SHUFFLED)])
    r = fit(np.arange(n))
    spread = max(float(shuffled.std()), 1e-9)
    others = {words: fit(order) for words, order in _other_orders(names).items()}
    words = max(others, key=lambda key: others[key])
    clearly = others[words] - r > 4 * spread and others[words] > 1.25 * r
    return ImageOrder(
        n_images=n,
        r=round(r, 4),
        z=round((r - float(shuffled.mean())) / spread, 2),
        better=words if clearly else None,
        better_r=round(others[words], 4) if clearly else None,
    )


def _among_neighbours(n: int, rng: np.random.Generator) -> np.ndarray:
    """An order in which each image takes a place near its own."""
    return np.argsort(np.arange(n) // _NEIGHBOURS + rng.random(n))


def image_features(paths: Sequence[Path]) -> np.ndarray:
    """Colours of a coarse image, brightness, contrast and edges: float64 (n_images, n_features)."""
    return np.array([_features(path) for path in paths])


def _features(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        image.draft("RGB", (2 * _PIXELS, 2 * _PIXELS))  # JPEG is decoded at a fraction of its size
        rgb = image.convert("RGB")
    box = Image.Resampling.BOX
    colours = np.asarray(rgb.resize((_COLOURS, _COLOURS), box), np.float64) / 255
    small = np.asarray(rgb.convert("L").resize((_PIXELS, _PIXELS), box), np.float64) / 255
    side = _PIXELS // _BLOCKS
    contrast = small.reshape(_BLOCKS, side, _BLOCKS, side).std(axis=(1, 3))
    edges = [
        np.pad(np.abs(np.diff(small, axis=axis)), [(0, axis == 0), (0, axis == 1)])
        .reshape(_BLOCKS, side, _BLOCKS, side)
        .mean(axis=(1, 3))
        for axis in (0, 1)
    ]
    parts = [colours, contrast, *edges, np.array([small.mean(), small.std()])]
    return np.concatenate([part.ravel() for part in parts])


def _left_out_predictions(
    features: np.ndarray, folds: np.ndarray
) -> Callable[[np.ndarray], np.ndarray]:
    """The matrix that predicts the responses to each fold's images by ridge on the others."""
    standard = _standardised(features)
    products = standard @ standard.T / standard.shape[1]
    smoother = np.zeros_like(products)
    for fold in range(_N_FOLDS):
        train, test = np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)
        inner = products[np.ix_(train, train)] + _RIDGE * np.eye(len(train))
        smoother[np.ix_(test, train)] = scipy.linalg.solve(
            inner, products[np.ix_(train, test)], assume_a="pos"
        ).T
    return lambda targets: smoother @ targets


def _other_orders(names: Sequence[str]) -> dict[str, np.ndarray]:
    """Orders that are easily mistaken for the right one, as the image of each row of responses."""
    n = len(names)
    as_text = np.array(sorted(range(n), key=lambda place: names[place]))
    as_numbers = np.array(sorted(range(n), key=lambda place: _natural(names[place])))
    orders = {
        "the reverse": np.arange(n)[::-1],
        "each with the image after": np.roll(np.arange(n), -1),
        "each with the image before": np.roll(np.arange(n), 1),
    }
    if np.array_equal(as_text, as_numbers):
        orders["that of the file names"] = as_text
    else:
        orders["that of the file names as text, image10 before image2"] = as_text
        orders["that of the numbers in file names, image2 before image10"] = as_numbers
    return {
        words: order for words, order in orders.items() if not np.array_equal(order, np.arange(n))
    }


def _natural(name: str) -> list[tuple[int, str]]:
    return [
        (int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)
    ]


def _sites(recordings: Recordings, reliability: np.ndarray | None) -> list[int]:
    n = recordings.n_sites
    if reliability is not None:
        ranked = np.argsort(-np.nan_to_num(reliability, nan=-np.inf), kind="stable")
        return sorted(ranked[:_MOST_SITES].tolist())
    spread = np.linspace(0, n - 1, min(n, _MOST_SITES)).round().astype(int)
    return [int(place) for place in spread]


def _runs(rows: np.ndarray) -> np.ndarray:
    """All rows, or of many some runs of neighbours, so that a shift still shows."""
    if len(rows) <= _MOST_IMAGES:
        return rows
    starts = np.linspace(0, len(rows) - _NEIGHBOURS, _MOST_IMAGES // _NEIGHBOURS).astype(int)
    return rows[np.unique(starts[:, None] + np.arange(_NEIGHBOURS))]


def _standardised(values: np.ndarray) -> np.ndarray:
    """Columns of mean 0 and deviation 1; constant ones, and what is missing, are 0."""
    there = ~np.isnan(values)
    counts = np.maximum(there.sum(axis=0), 1)
    filled = np.where(there, values, 0.0)
    moved = np.where(there, values - filled.sum(axis=0) / counts, 0.0)
    deviation = np.sqrt((moved**2).sum(axis=0) / counts)
    return moved / np.where(deviation > 1e-9, deviation, np.inf)


def _mean_r(predicted: np.ndarray, targets: np.ndarray) -> float:
    predicted = predicted - predicted.mean(axis=0)
    lengths = np.linalg.norm(predicted, axis=0) * np.linalg.norm(targets, axis=0)
    products = (predicted * targets).sum(axis=0)
    return float(np.divide(products, lengths, out=np.zeros_like(lengths), where=lengths > 0).mean())


def _in_words(order: ImageOrder, part: str, reliability: np.ndarray) -> str:
    numbers = f"r {order.r:.2f}, {order.z:.1f} standard deviations over shuffled orders"
    if order.better is not None:
        return (
            f"the images{part} look paired with the wrong responses: simple features of the images "
            f"predict them ({numbers}) worse than in another order, {order.better} "
            f"(r {order.better_r:.2f})"
        )
    sure = ""
    if not np.isnan(reliability).all():
        sure = f", though the sites repeat with a reliability of {np.nanmedian(reliability):.2f}"
    return (
        f"the order of the images{part} looks shuffled: simple features of {order.n_images} images "
        f"do not predict the responses ({numbers}; the right order is over {_LEAST_Z:g} on "
        f"recorded sites){sure}. Check which image each row of responses belongs to"
    )
