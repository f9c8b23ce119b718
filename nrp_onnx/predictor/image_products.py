"""Inner products of images in one layer or over all layers, without holding all activations.

A linear method needs only the Gram matrix X X^T (n x n) of the activations X (n x D). It is the sum
of the Gram matrices of blocks of features, so a layer is read once, block by block.

n images span at most n - 1 directions around their mean. Coordinates in these directions are the
activations, rotated: their inner products are the same, so a linear method without scaling gives the
same predictions from them. The rotation may therefore be found from all images, held-out ones
included, without telling the method anything about them, and one rotation serves all splits.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.linalg import lapack

from nrp_onnx.activations.layer_file import LayerActivations
from nrp_onnx.threads import map_on_cores

#: Eigenvalues below this share of the largest one are rounding of float32.
TOLERANCE = 1e-6
_SMALLEST = 1e-18
FEATURES_A_BLOCK = 4096
#: Rows of the Gram matrices that are added at a time: so few stay in the processor's cache.
_ROWS = 16
#: What is left of an image below this share of the largest squared length is rounding of float32.
_ROUNDING = 1e-6


def eigenvectors(symmetric: np.ndarray, noise: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvalues from the largest down and their vectors, without those of rounding noise.

    Args:
        symmetric: float64 (n, n), positive semidefinite but for rounding.
        noise: eigenvalues up to this are noise.
    """
    values, vectors = np.linalg.eigh(symmetric)
    keep = over_rounding(values, noise)
    return values[keep][::-1], vectors[:, keep][:, ::-1]


def over_rounding(values: np.ndarray, noise: float = 0.0) -> np.ndarray:
    """Which eigenvalues are more than rounding noise, bool (n,).

    `TOLERANCE` is a share of the largest eigenvalue. A layer that is the same for every image has
    rounding noise alone; ``noise`` is its absolute size.
    """
    found: np.ndarray = values > max(float(values.max()) * TOLERANCE, noise, _SMALLEST)
    return found


@dataclass(frozen=True, eq=False)
class LayerSpan:
    """The inner products of n images in a layer of D features, and the activations where D <= n.

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
    """Read a layer once and compute its inner products.

    It needs `span_bytes` of memory, and 16 row groups of a stored layer (of 4 MiB, or one image
    where that is more) for Parquet's decoder. None of this grows with D.

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
        # Float32 products would be faster. But directions of small variance matter in a ridge
        # regression: with them, its rates before and after export differed by 2e-4 standard deviations.
        moved = block - block.mean(axis=0, dtype=np.float64)
        products += moved @ moved.T
    return LayerSpan(products, None, norms)


def span_bytes(n: int, width: int = FEATURES_A_BLOCK) -> int:
    """Bytes of memory that `read_span` needs for n images, whatever the number of features."""
    return 24 * n**2 + 16 * n * width


def read_spans(layers: Sequence[LayerActivations]) -> list[LayerSpan]:
    """`read_span` of each layer, several at a time where they are small."""
    # The largest first: started last, it would keep one core busy while the others are idle.
    places = sorted(range(len(layers)), key=lambda place: -layers[place].shape[1])
    bytes_each = span_bytes(layers[0].shape[0])
    found = map_on_cores(lambda place: read_span(layers[place]), places, bytes_each)
    return [span for _, span in sorted(zip(places, found, strict=True), key=lambda pair: pair[0])]


def centred(products: np.ndarray, train: np.ndarray) -> np.ndarray:
    """The inner products (n, n) around the mean of the images ``train``, from those around any point."""
    toward = products @ (np.bincount(train, minlength=len(products)) / len(train))
    moved: np.ndarray = products - toward[:, None]
    moved -= toward - toward[train].mean()
    return moved


def centred_columns(products: np.ndarray, train: np.ndarray) -> np.ndarray:
    """The columns ``train`` of `centred`, (n, n_train), without computing the others."""
    columns: np.ndarray = products[:, train]
    toward = columns.mean(axis=1)
    columns -= toward[:, None]
    columns -= toward[train] - toward[train].mean()
    return columns


@dataclass(frozen=True, eq=False)
class JoinedSpan:
    """Inner products of images over all layers side by side.

    Attributes:
        products: float64 (n, n), around some point; `around` moves it.
        features: float64 (n, D), the layers side by side; None unless D < n_train.
        scales: float64 (n_layers,), what the activations of each layer were divided by.
    """

    products: np.ndarray
    features: np.ndarray | None
    scales: np.ndarray

    def around(self, rows: np.ndarray) -> "JoinedSpan":
        """The same around the mean of the images ``rows``."""
        features = None if self.features is None else self.features - self.features[rows].mean(0)
        return JoinedSpan(centred(self.products, rows), features, self.scales)

    def spectrum(self, train: np.ndarray) -> "Spectrum":
        """The spectrum of the images ``train``; the products have to be around their mean."""
        if self.features is not None:
            return spectrum_of_features(self.features[train])
        return spectrum_of_products(self.products[np.ix_(train, train)])


def join_layers(layers: Sequence[LayerSpan], train: np.ndarray) -> JoinedSpan:
    """Join layers, each scaled so that the training images' mean square distance from their mean is 1.

    Args:
        layers: in which the training images differ.
    """
    n = layers[0].n_images
    share = np.bincount(train, minlength=n) / len(train)
    squares = []
    for layer in layers:
        # The mean square distance, without a centred copy of the products.
        toward = layer.products @ share
        squares.append(float((layer.products.diagonal() - toward) @ share))
    products = np.zeros((n, n))
    for start in range(0, n, _ROWS):
        rows = slice(start, start + _ROWS)
        for layer, square in zip(layers, squares, strict=True):
            products[rows] += layer.products[rows] / square
    scales = np.sqrt(squares)
    features, joined = [layer.features for layer in layers], None
    if sum(n if x is None else x.shape[1] for x in features) < len(train):
        joined = np.hstack([x / s for x, s in zip(features, scales, strict=True) if x is not None])
    return JoinedSpan(products, joined, scales)


@dataclass(frozen=True, eq=False)
class Spectrum:
    """The singular value decomposition U S V^T of the centred features of the training images.

    A linear method gives the same predictions from U S as from the features.

    Attributes:
        left: U, float64 (n_train, r).
        squares: S^2, float64 (r,), from the largest down.
    """

    left: np.ndarray
    squares: np.ndarray

    @property
    def coordinates(self) -> np.ndarray:
        """U S, float64 (n_train, r)."""
        scaled: np.ndarray = self.left * np.sqrt(self.squares)
        return scaled

    def coordinates_of(self, products: np.ndarray) -> np.ndarray:
        """Coordinates of new images in the same directions, float64 (n_new, r).

        Args:
            products: inner products of new images with the training images, float64 (n_new, n_train).
        """
        projected: np.ndarray = products @ (self.left / np.sqrt(self.squares))
        return projected


def spectrum_of_products(products: np.ndarray) -> Spectrum:
    """The spectrum from inner products (n_train, n_train) around the mean of the training images."""
    squares, left = eigenvectors(products)
    return Spectrum(left, squares)


def spectrum_of_features(features: np.ndarray) -> Spectrum:
    """The spectrum from centred features (n_train, D); faster than from products where D < n_train."""
    squares, right = eigenvectors(features.T @ features)
    return Spectrum(features @ right / np.sqrt(squares), squares)


def joined_products(layers: Sequence[LayerSpan]) -> np.ndarray:
    """Inner products of images around their mean over all layers, not scaled: float64 (n, n)."""
    products = np.zeros((layers[0].n_images, layers[0].n_images))
    for layer in layers:
        products += layer.products
    return products


def coordinates(products: np.ndarray) -> np.ndarray:
    """Coordinates of images around their mean, scaled so that the longest has length 1.

    Up to that scale and rounding, their inner products are ``products``. A Cholesky decomposition with
    pivots finds them in a fraction of the time of an eigendecomposition.

    Args:
        products: inner products, float64 (n, n); they are overwritten.

    Returns:
        float32 (n, r), with r = 0 where no two images differ.
    """
    # Products are centred up to rounding only; the rest would end up in the last image.
    products -= products.mean(axis=0)
    products -= products.mean(axis=1, keepdims=True)
    largest = float(products.diagonal().max())
    if largest <= 0:
        return np.zeros((len(products), 0), np.float32)
    products /= largest
    # LAPACK's order is by columns: with the transpose it works in place.
    factor, pivots, rank, _ = lapack.dpstrf(products.T, tol=_ROUNDING, lower=1, overwrite_a=1)
    found = np.zeros((len(products), rank), np.float32)
    for row, image in enumerate(pivots - 1):
        n = min(row + 1, rank)
        found[image, :n] = factor[row, :n]
    return found
