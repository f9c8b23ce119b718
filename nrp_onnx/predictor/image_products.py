"""Inner products of images in one or in all layers, without holding all activations.

For n images of D > n features, everything that a linear map can see of the activations X (n x D) is
in their Gram matrix X X^T (n x n). It is the sum of the Gram matrices of blocks of features.

N images lie in N - 1 directions around their mean, however many features D there are. Coordinates in
these directions have the inner products of the activations themselves, so any linear method that is
not scaled gives the same predictions from them: they are the activations, rotated. Such a method sees
the training images through their inner products only; where its axes come from changes nothing, so
axes that all images determine leak nothing about held-out ones. One rotation serves all splits.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.linalg import lapack

from nrp_onnx.activations.layer_file import LayerActivations
from nrp_onnx.threads import map_on_cores

#: Directions whose share of the largest eigenvalue is below this are rounding noise of float32.
TOLERANCE = 1e-6
_SMALLEST = 1e-18


def eigenvectors(symmetric: np.ndarray, noise: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvalues from the largest down and their vectors, those of rounding noise left out.

    Args:
        symmetric: float64 (n, n), positive semidefinite but for rounding.
        noise: eigenvalues up to this are noise.
    """
    values, vectors = np.linalg.eigh(symmetric)
    keep = over_rounding(values, noise)
    return values[keep][::-1], vectors[:, keep][:, ::-1]


def over_rounding(values: np.ndarray, noise: float = 0.0) -> np.ndarray:
    """Which eigenvalues are no rounding noise, bool (n,).

    Where `TOLERANCE` finds noise beside a signal, ``noise`` finds it where there is no signal: in a
    layer that is the same for every image but for rounding.
    """
    found: np.ndarray = values > max(float(values.max()) * TOLERANCE, noise, _SMALLEST)
    return found


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


_ROWS = 16


@dataclass(frozen=True, eq=False)
class JoinedSpan:
    """Inner products of images over the joined layers.

    Attributes:
        products: float64 (n, n), around one point, of which nothing else is to be known.
        features: float64 (n, D), the joined layers, where they are fewer than the training images.
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
        """Of the images ``train``, around whose mean this is."""
        if self.features is not None:
            return spectrum_of_features(self.features[train])
        return spectrum_of_products(self.products[np.ix_(train, train)])


def join_layers(layers: Sequence[LayerSpan], train: np.ndarray) -> JoinedSpan:
    """Join layers, each scaled so that a training image's mean square distance from the mean is 1.

    Args:
        layers: in which the training images differ.
    """
    n = layers[0].n_images
    share = np.bincount(train, minlength=n) / len(train)
    squares = []
    for layer in layers:
        # Around the mean of the training images: no array of n x n is needed for it.
        toward = layer.products @ share
        squares.append(float((layer.products.diagonal() - toward) @ share))
    products = np.zeros((n, n))
    for start in range(0, n, _ROWS):  # so few rows that they stay in the processor's cache
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
    """The centred features of training images as U S V^T.

    Every linear method gives the same predictions from U S as from the features themselves.

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
        """New images in the same directions, float64 (n_new, r).

        Args:
            products: inner products of new images with the training images, float64 (n_new, n_train).
        """
        projected: np.ndarray = products @ (self.left / np.sqrt(self.squares))
        return projected


def spectrum_of_products(products: np.ndarray) -> Spectrum:
    """From inner products (n_train, n_train) around the mean of the training images."""
    squares, left = eigenvectors(products)
    return Spectrum(left, squares)


def spectrum_of_features(features: np.ndarray) -> Spectrum:
    """From features (n_train, D) around the mean of the training images; sooner where D < n_train."""
    squares, right = eigenvectors(features.T @ features)
    return Spectrum(features @ right / np.sqrt(squares), squares)


#: What is left of an image, as a share of the largest squared length, that is rounding of float32.
_ROUNDING = 1e-6


def joined_products(layers: Sequence[LayerSpan]) -> np.ndarray:
    """Inner products of images around their mean, float64 (n, n), over all layers as they are."""
    products = np.zeros((layers[0].n_images, layers[0].n_images))
    for layer in layers:
        products += layer.products
    return products


def coordinates(products: np.ndarray) -> np.ndarray:
    """Coordinates of images around their mean, on a scale that gives the longest of them length 1.

    Their inner products are ``products`` but for that scale and rounding. By Cholesky's decomposition
    with pivots, which takes a fraction of the time of eigenvectors.

    Args:
        products: inner products, float64 (n, n); they are overwritten.

    Returns:
        float32 (n, r), with r = 0 where no two images differ.
    """
    # Rounding leaves products not quite centred, and the last image would take up what is left.
    products -= products.mean(axis=0)
    products -= products.mean(axis=1, keepdims=True)
    largest = float(products.diagonal().max())
    if largest <= 0:
        return np.zeros((len(products), 0), np.float32)
    products /= largest
    # LAPACK numbers columns first, and works in place on what is stored so.
    factor, pivots, rank, _ = lapack.dpstrf(products.T, tol=_ROUNDING, lower=1, overwrite_a=1)
    found = np.zeros((len(products), rank), np.float32)
    for row, image in enumerate(pivots - 1):
        n = min(row + 1, rank)
        found[image, :n] = factor[row, :n]
    return found
