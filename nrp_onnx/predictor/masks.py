"""Gaussian masks over the image, and the inner products of images that are seen through them.

With the activations X_p (n x C) of a layer at position p and a mask m over positions, ridge regression
on the masked features m_p X_p needs K = sum_p m_p^2 X_p X_p^T. The products X_p X_p^T of all positions
cost what the one product of a dense ridge costs, and each mask is a weighted sum of them.
"""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nrp_onnx.activations.layer_file import LayerActivations
from nrp_onnx.backbone.layers import Grid


@dataclass(frozen=True)
class Mask:
    """A Gaussian over the image.

    Attributes:
        x, y: its centre, from the left and from the top, as shares of the image's size.
        width: its standard deviation, as a share of the image's size.
    """

    x: float
    y: float
    width: float

    def weights(self, grid: Grid) -> np.ndarray:
        """Of the positions of a grid, with a mean of 1: float64 (P,)."""
        squares = ((grid.centres() - (self.x, self.y)) ** 2).sum(axis=1)
        weights = np.exp(-(squares - squares.min()) / (2 * self.width**2))
        found: np.ndarray = weights / weights.mean()
        return found


_CENTRES = np.arange(1.5, 6) / 7
#: What a site may see: the whole image alike (None), or one of 5 x 5 places in one of two widths.
MASKS: tuple[Mask | None, ...] = (
    None,
    *(Mask(x, y, w) for y in _CENTRES for x in _CENTRES for w in (1 / 7, 2 / 7)),
)

#: Features that are read at a time, and images whose products are computed at a time.
_WIDTH, _ROWS = 16384, 64
#: From so many bytes on, the products are kept in a scratch file.
_MOST_BYTES = 2**30
#: Variance below this share of the squared activations is rounding.
_ROUNDING = 1e-10


@dataclass(frozen=True, eq=False)
class SeenLayer:
    """A layer's activations, and where its features lie in the image; ``grid`` None: nowhere."""

    activations: LayerActivations
    grid: Grid | None

    def position_of_features(self) -> np.ndarray:
        """The position of each feature, int64 (D,); -1 where it has none."""
        if self.grid is None:
            return np.full(self.activations.shape[1], -1)
        return self.grid.position_of_features()

    def mask_weights(self) -> np.ndarray:
        """What `MASKS` multiply the squared features by: float64 (M, P + 1), the last of no place."""
        if self.grid is None:
            return np.ones((len(MASKS), 1))
        n = self.grid.n_positions
        rows = [np.ones(n) if mask is None else mask.weights(self.grid) ** 2 for mask in MASKS]
        return np.hstack([np.stack(rows), np.ones((len(MASKS), 1))])


@dataclass(frozen=True, eq=False)
class MaskedProducts:
    """Inner products of n images over all layers, through each of `MASKS`.

    Each layer counts alike: through each mask, the mean square distance of all images from their mean
    is 1. This scale is taken over all images, held-out ones included; it knows no response.

    Attributes:
        products: float32 (M, n, n), around the mean of all images.
        layers: whose activations they are of.
        scales: for each layer, what the squared features are multiplied by: float64 (M, P + 1).
        means: for each layer the mean of all images, float64 (D,).
    """

    products: np.ndarray
    layers: Sequence[SeenLayer]
    scales: list[np.ndarray]
    means: list[np.ndarray]

    def factors(self, place: int, masks: np.ndarray, features: slice) -> np.ndarray:
        """What the squared features of a layer are multiplied by: float64 (len(masks), k).

        Args:
            masks: places in `MASKS`.
            features: k of the layer's features.
        """
        positions = self.layers[place].position_of_features()[features]
        found: np.ndarray = self.scales[place][np.ix_(masks, positions)]
        return found


def masked_bytes(n_images: int) -> int:
    """Bytes that `masked_products` keeps; from 1 GiB on in a scratch file instead of in memory."""
    return 4 * len(MASKS) * n_images**2


def masked_products(layers: Sequence[SeenLayer], folder: Path | None = None) -> MaskedProducts:
    """Compute the inner products of images through all masks; each layer is read twice.

    Beside the products (see `masked_bytes`), memory holds two blocks of 16,384 features of all images.

    Args:
        layers: those in which the images differ; one or more.
        folder: of the scratch file; None: that of temporary files.
    """
    n = layers[0].activations.shape[0]
    shape = (len(MASKS), n, n)
    products: np.ndarray
    if masked_bytes(n) <= _MOST_BYTES:
        products = np.zeros(shape, np.float32)
    else:
        # The file has no name: it is gone with the last reference to the array.
        with tempfile.TemporaryFile(dir=folder) as file:
            products = np.memmap(file, np.float32, "w+", shape=shape)
    scales, means = [], []
    for layer in layers:
        mean, variances = _moments(layer)
        weights = layer.mask_weights()
        size = weights @ variances
        scale = np.divide(
            weights, size[:, None], out=np.zeros_like(weights), where=size[:, None] > 0
        )
        _add_layer(products, layer, mean, scale)
        scales.append(scale)
        means.append(mean)
    return MaskedProducts(products, layers, scales, means)


def _moments(layer: SeenLayer) -> tuple[np.ndarray, np.ndarray]:
    """Mean of each feature, (D,), and the summed variance of the features of each position, (P + 1,)."""
    n, n_features = layer.activations.shape
    mean, squares = np.zeros(n_features), np.zeros(n_features)
    for _, rows in layer.activations.blocks():
        mean += rows.sum(axis=0, dtype=np.float64) / n
        squares += np.einsum("ij,ij->j", rows, rows, dtype=np.float64) / n
    variances = squares - mean**2
    variances[variances < _ROUNDING * squares] = 0
    n_positions = layer.grid.n_positions if layer.grid else 0
    positions = layer.position_of_features()
    positions = np.where(positions < 0, n_positions, positions)
    return mean, np.bincount(positions, variances, n_positions + 1)


def _add_layer(products: np.ndarray, layer: SeenLayer, mean: np.ndarray, scale: np.ndarray) -> None:
    n, positions = layer.activations.shape[0], layer.position_of_features()
    for features, block in layer.activations.feature_blocks(_WIDTH):
        block -= mean[features].astype(np.float32)
        order = np.argsort(positions[features], kind="stable")
        there, starts = np.unique(positions[features][order], return_index=True)
        columns = np.split(order, starts[1:])
        seen = [np.ascontiguousarray(block[:, some]) for some in columns]
        weights = scale[:, there].astype(np.float32)
        for start in range(0, n, _ROWS):
            rows = slice(start, start + _ROWS)
            at_positions = np.stack([x[rows] @ x.T for x in seen])
            products[:, rows] += np.tensordot(weights, at_positions, axes=1)
