"""Inner products of images in one layer, without ever holding all of its activations.

For n images of D > n features, everything that a linear map can see of the activations X (n x D) is
in their Gram matrix X X^T (n x n). It is the sum of the Gram matrices of blocks of features.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nrp_onnx.activations.layer_activations import LayerActivations
from nrp_onnx.predictor.cores import map_on_cores

FEATURES_A_BLOCK = 4096


@dataclass(frozen=True, eq=False)
class LayerSpan:
    """What fits of a layer need: products of images, and where D <= n the activations themselves.

    Attributes:
        products: float64 (n, n), inner products around the mean of all images.
        features: float32 (n, D) where D <= n, else None.
        norms: float64 (n,), squared lengths of the images' activations, not centred.
    """

    products: np.ndarray
    features: np.ndarray | None
    norms: np.ndarray

    @property
    def n_images(self) -> int:
        return len(self.norms)


def read_span(layer: LayerActivations, width: int = FEATURES_A_BLOCK) -> LayerSpan:
    """Read a layer once and take its inner products.

    Memory holds at most `span_bytes`, and 16 times a row group of a stored layer
    (4 MiB, or one image where that is more) for Parquet's decoder: nothing grows with n D.

    Args:
        width: features a block.
    """
    n, n_features = layer.shape
    norms = np.zeros(n)
    if n_features <= n:
        features = np.empty((n, n_features), np.float32)
        for places, rows in layer.blocks():
            features[places] = rows
            norms[places] = np.einsum("ij,ij->i", rows, rows, dtype=np.float64)
        moved = features - features.mean(axis=0, dtype=np.float64)
        return LayerSpan(moved @ moved.T, features, norms)
    products = np.zeros((n, n))
    for _, block in layer.feature_blocks(width):
        norms += np.einsum("ij,ij->i", block, block, dtype=np.float64)
        # Float32 products would be faster, but small directions take part in a ridge regression: rates
        # from its weights on features, as they are exported, differed by 2e-4 standard deviations.
        moved = block - block.mean(axis=0, dtype=np.float64)
        products += moved @ moved.T
    return LayerSpan(products, None, norms)


def span_bytes(n: int, width: int = FEATURES_A_BLOCK) -> int:
    """What `read_span` needs for n images, however many features they have."""
    return 24 * n**2 + 16 * n * width


def read_spans(layers: Sequence[LayerActivations]) -> list[LayerSpan]:
    """`read_span` of each layer, several at a time where they are small."""
    # The largest first, so that no core is left with it in the end.
    places = sorted(range(len(layers)), key=lambda place: -layers[place].shape[1])
    bytes_each = span_bytes(layers[0].shape[0])
    found = map_on_cores(lambda place: read_span(layers[place]), places, bytes_each)
    return [span for _, span in sorted(zip(places, found, strict=True), key=lambda pair: pair[0])]


def centred(products: np.ndarray, train: np.ndarray) -> np.ndarray:
    """Inner products (n, n) around the mean of the images ``train`` instead of any other point."""
    toward = products @ (np.bincount(train, minlength=len(products)) / len(train))
    moved: np.ndarray = products - toward[:, None]
    moved -= toward - toward[train].mean()
    return moved


def centred_columns(products: np.ndarray, train: np.ndarray) -> np.ndarray:
    """The columns ``train`` of `centred`, (n, n_train), without the others."""
    columns: np.ndarray = products[:, train]
    toward = columns.mean(axis=1)
    columns -= toward[:, None]
    columns -= toward[train] - toward[train].mean()
    return columns
