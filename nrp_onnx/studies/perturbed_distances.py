"""How far changes to images move activations, and how far apart those of different images are."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from nrp_onnx.activations.batches import Batches
from nrp_onnx.activations.session import BoundSession, open_session
from nrp_onnx.backbone.feature_graph import IMAGES, Feature, build_feature_graph, to_checked_proto
from nrp_onnx.backbone.model import Backbone
from nrp_onnx.backbone.preprocessing import Preprocessing
from nrp_onnx.decoding_pool import DecodedImages
from nrp_onnx.notes import Notes
from nrp_onnx.progress import progress_bar

_BATCH = 16

Images = Sequence[np.ndarray]


class Perturbation(Protocol):
    """A change to images, at several levels."""

    @property
    def levels(self) -> Sequence[float]:
        """Its sizes, in grey levels of 255."""
        ...

    def prepared(self, images: Images) -> Images:
        """The images that are changed, uint8 (height, width, 3), of decoded ones."""
        ...

    def changed(self, images: Images, places: Sequence[int]) -> Iterator[Images]:
        """Prepared images as they are at each level, uint8.

        Args:
            places: of the images among the stimuli.
        """
        ...


@dataclass(frozen=True)
class GaussianNoise:
    """Noise in each number of the decoded image; see `noisy_image`."""

    levels: Sequence[float]
    seed: int

    def prepared(self, images: Images) -> Images:
        """See `Perturbation`."""
        return images

    def changed(self, images: Images, places: Sequence[int]) -> Iterator[Images]:
        """See `Perturbation`."""
        for level in self.levels:
            yield [
                noisy_image(image, level, self.seed, place)
                for image, place in zip(images, places, strict=True)
            ]


@dataclass(frozen=True, eq=False)
class PerturbedDistances:
    """Euclidean distances between activations of n images in L layers.

    Attributes:
        moved: ||f(x + e) - f(x)||, float64 (n_levels, L, n).
        apart: ||f(x) - f(x')||, float64 (L, n, n), symmetric.
    """

    moved: np.ndarray
    apart: np.ndarray


def noisy_image(image: np.ndarray, deviation: float, seed: int, place: int) -> np.ndarray:
    """A uint8 image with Gaussian noise in each of its numbers, rounded and clipped to 0 to 255.

    Args:
        deviation: of the noise, in grey levels of 255.
        place: of the image among the stimuli. With the seed it decides the noise, which is the same
            for all levels but for its size, and for all models.
    """
    noise = np.random.default_rng([seed, place]).standard_normal(image.shape)
    return np.clip(np.rint(image + deviation * noise), 0, 255).astype(np.uint8)


def measure_distances(
    backbone: Backbone,
    preprocessing: Preprocessing,
    features: Sequence[Feature],
    images: Sequence[tuple[int, Path]],
    perturbation: Perturbation,
    device: str,
    notes: Notes,
) -> PerturbedDistances:
    """Run images as they are, and changed at each level, through the feature graph.

    The activations of the images as they are stay in memory: 4 bytes a feature and image.

    Args:
        preprocessing: of the images that the perturbation prepares.
        images: places among the stimuli, and files.

    Raises:
        ModelError, DeviceError, RecordingsError: if the model, the device or an image cannot be used.
    """
    graph = to_checked_proto(
        build_feature_graph(backbone, preprocessing, features), "feature graph"
    ).SerializeToString()
    session = open_session(graph, device, notes, backbone.path, backbone.path.parent)
    names = [feature.layer.name for feature in features]
    reference = backbone.input.batch or _BATCH
    fixed = backbone.input.batch is not None
    run = BoundSession(session, IMAGES, names).run
    batches = Batches(run, reference, fixed, backbone.path, notes)
    n = len(images)
    clean = [np.empty((n, feature.n_features), np.float32) for feature in features]
    moved = np.empty((len(perturbation.levels), len(features), n))
    with (
        progress_bar("Changing images", n) as advance,
        batches,
        DecodedImages([path for _, path in images]) as decoded,
    ):
        while taken := decoded.take(batches.size):
            rows = slice(taken[0][0], taken[-1][0] + 1)
            prepared = perturbation.prepared([image for _, image in taken])
            started = batches.start(prepared)
            for layer, found in zip(clean, batches.finish(started), strict=True):
                layer[rows] = found
            places = [images[i][0] for i, _ in taken]
            for number, changed in enumerate(perturbation.changed(prepared, places)):
                for place, found in enumerate(_in_batches(batches, changed)):
                    moved[number, place, rows] = _distances(found, clean[place][rows])
            advance(len(taken))
    return PerturbedDistances(moved, np.stack([_pairwise(layer) for layer in clean]))


def _in_batches(batches: Batches, images: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Activations of images that may be more than a batch by now: memory may have ended."""
    parts, start = [], 0
    while start < len(images):
        size = batches.size
        parts.append(batches.finish(batches.start(images[start : start + size])))
        start += size
    return [np.concatenate(outputs) for outputs in zip(*parts, strict=True)]


def _distances(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Row by row, float64 (n,)."""
    found: np.ndarray = np.linalg.norm(one.astype(float) - other, axis=-1)
    return found


def _pairwise(rows: np.ndarray) -> np.ndarray:
    """Of every two rows, float64 (n, n)."""
    apart = np.zeros((len(rows), len(rows)))
    for i in range(len(rows) - 1):
        apart[i, i + 1 :] = _distances(rows[i + 1 :], rows[i])
    return apart + apart.T
