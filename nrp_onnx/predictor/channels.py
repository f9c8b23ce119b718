"""What a spatial head sees of a layer: the leading principal components of its channels, at every position.

The components are the same at all positions, as the weights of NRP-L1 on them are, so that they are
folded into these weights on export.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import scipy.linalg

from nrp_onnx.activations.layer_file import LayerActivations
from nrp_onnx.backbone.layers import Grid
from nrp_onnx.predictor.rows_on_disk import RowsOnDisk, rows_of_images

#: Positions of training images that the components are found from, at most; and their seed.
_SAMPLED, _SEED = 8192, 0
#: A component's variance is raised to this power: between the layer's own spectrum (1), in which few
#: components drown the others, and a flat one (0), in which noise is as large as they are.
_POWER = 0.5
#: Variance below this share of the largest is rounding.
_ROUNDING = 1e-6
_BLOCK = 1024


@dataclass(frozen=True, eq=False)
class SeenLayer:
    """A layer's activations, and where its features lie in the image; ``grid`` None: nowhere."""

    activations: LayerActivations
    grid: Grid | None


@dataclass(frozen=True, eq=False)
class ChannelBasis:
    """The components of a layer's channels.

    Attributes:
        coordinates: float32 (n_images, P, k) of all images; over the training images and positions
            their mean square is 1.
        mean: of the training images, float64 (D,), by feature as the layer has them.
        directions: float64 (channels, k), from activations less their mean to coordinates.
        grid: of the layer; one cell that holds all features where it has none.
        lengths: mean square length of the training images at each position, float64 (P,).
    """

    coordinates: "np.ndarray | RowsOnDisk"
    mean: np.ndarray
    directions: np.ndarray
    grid: Grid
    lengths: np.ndarray


def fit_channels(
    layer: SeenLayer,
    train: np.ndarray,
    most: int,
    most_without: int,
    folder: Path | None = None,
) -> ChannelBasis:
    """Find the components on training images; the layer is read once.

    Args:
        train: places of the training images.
        most: components of a layer with a grid, at most.
        most_without: components of one without.
        folder: where the coordinates lie; None: in memory.
    """
    n, n_features = layer.activations.shape
    grid = layer.grid or Grid(1, 1, n_features, True)
    most = most if layer.grid else most_without
    rng = np.random.default_rng(_SEED)
    n_sampled = min(len(train), -(-_SAMPLED // grid.n_positions))
    some = np.sort(rng.permutation(train)[:n_sampled])
    sample = grid.by_position(layer.activations.read(some))
    sample = (sample - sample.mean(axis=0, dtype=np.float64).astype(np.float32)).reshape(
        -1, grid.channels
    )
    # Squares of very large activations would be no float32 numbers.
    largest = np.float32(np.abs(sample).max()) or np.float32(1)
    variances, directions = _components(sample / largest, most)
    scaled = directions * variances ** ((_POWER - 1) / 2)
    coordinates = rows_of_images((n, grid.n_positions, scaled.shape[1]), folder)
    mean = np.zeros(n_features)
    is_train = np.zeros(n, bool)
    is_train[train] = True
    for places, rows in layer.activations.blocks():
        coordinates[places] = grid.by_position(rows / largest) @ scaled.astype(np.float32)
        mean += rows[is_train[places]].sum(axis=0, dtype=np.float64)
    mean /= len(train)
    # A few images at a time: those of a layer may be a gigabyte.
    blocks = [train[start : start + _BLOCK] for start in range(0, len(train), _BLOCK)]
    sums = sum(coordinates[some].sum(axis=0, dtype=np.float64) for some in blocks)
    middle = (sums / len(train)).astype(np.float32)
    lengths = np.zeros(grid.n_positions)
    for some in blocks:
        lengths += np.square(coordinates[some] - middle, dtype=np.float64).sum(axis=2).sum(axis=0)
    lengths /= len(train)
    size = float(np.sqrt(lengths.mean() / scaled.shape[1])) or 1.0
    for start in range(0, n, _BLOCK):
        block = slice(start, start + _BLOCK)
        coordinates[block] = (coordinates[block] - middle) / np.float32(size)
    directions = scaled / size / float(largest)
    return ChannelBasis(coordinates, mean, directions, grid, lengths / size**2)


def _components(sample: np.ndarray, most: int) -> tuple[np.ndarray, np.ndarray]:
    """Variances of the leading components, (k,), and their directions, (channels, k); k is 1 or more."""
    n, n_channels = sample.shape
    if n < n_channels:
        # From the inner products of the sampled rows, which are fewer than the channels.
        values, left = _leading(sample @ sample.T, most)
        directions = sample.T @ left / np.sqrt(values)
    else:
        values, directions = _leading(sample.T @ sample, most)
    return values / n, directions


def _leading(symmetric: np.ndarray, most: int) -> tuple[np.ndarray, np.ndarray]:
    size = len(symmetric)
    first = max(0, size - most)
    values, vectors = scipy.linalg.eigh(
        symmetric.astype(np.float64), subset_by_index=(first, size - 1)
    )
    keep = values > max(_ROUNDING * values[-1], np.finfo(float).tiny)
    if not keep.any():  # the layer is the same everywhere
        return np.ones(1), np.zeros((size, 1))
    # A vector may point either way: its largest entry is made positive.
    values, vectors = values[keep][::-1], vectors[:, keep][:, ::-1]
    signs = np.sign(vectors[np.abs(vectors).argmax(axis=0), np.arange(vectors.shape[1])])
    return values, vectors * signs
