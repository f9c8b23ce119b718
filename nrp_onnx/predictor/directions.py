"""Coordinates of activations in the directions that the training images span.

n images span at most n - 1 directions around their mean, whatever the number of features D. With the
centred training activations X = U S V^T, any linear map of X is one of U S (n x r). So heads are
trained on U S, and V is folded back into their weights on export.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from scipy.linalg import qr

from nrp_onnx.activations.layer_file import LayerActivations
from nrp_onnx.predictor.image_products import (
    FEATURES_A_BLOCK,
    LayerSpan,
    centred_columns,
    eigenvectors,
    over_rounding,
)
from nrp_onnx.predictor.rows_on_disk import RowsOnDisk, rows_of_images

#: Random vectors beyond the number of directions asked for, and products with the matrix. For 128 and
#: 256 of 2,560 directions they take 0.3 and 0.5 s, all directions 3.0 s; ARPACK took 12 s, LOBPCG 11 s.
#: The directions hold 0.9999 of the variance of the exact ones in layers of a ResNet50, and 0.996 where
#: eigenvalues fall like 1 / place. `sklearn.utils.extmath.randomized_svd` is compared in
#: benchmarks/RESULTS.md.
_OVER, _PASSES = 32, 4
#: For more than this share of all directions, finding all of them is about as fast.
_SHARE = 0.2
#: Directions in which the training images spread less than this part of their length are rounding.
_ROUNDING = 4 * float(np.finfo(np.float32).eps)
#: Images that the directions of a very wide layer are found from, at least, and bytes that they take.
_FEWEST, _SAMPLE_BYTES = 64, 2**29


def are_few(most: int, n_directions: int) -> bool:
    """Whether `leading_directions` is faster than an eigendecomposition for ``most`` directions."""
    return most + _OVER < _SHARE * n_directions


def leading_directions(
    products: np.ndarray, train: np.ndarray, most: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Leading directions of the training images around their mean.

    A block power iteration that starts at random vectors (Halko, Martinsson & Tropp 2011, algorithm
    4.4, on a symmetric matrix). It needs no centred copy of the products: times vectors that sum to 0,
    they give what the centred ones give, up to a constant.

    Args:
        products: float64 (n, n), inner products of all images around any point.
        train: places of the training images.

    Returns:
        Eigenvalues of the centred products of the training images from the largest down, float64 (r,);
        their vectors, float64 (n_train, r); and, for every image, its centred products with the
        training images times these vectors, float64 (n, r).
    """
    n, rng = len(products), np.random.default_rng(0)
    wide = np.zeros((n, most + _OVER), np.float32)
    basis = rng.standard_normal((len(train), wide.shape[1]), dtype=np.float32)
    # All passes but the last only turn the basis toward the leading vectors: float32 is enough.
    largest = float(products.diagonal().max()) or 1.0
    rounded = np.empty(products.shape, np.float32)
    np.multiply(products, 1 / largest, out=rounded, casting="same_kind")
    for _ in range(_PASSES - 1):
        wide[train] = basis - basis.mean(axis=0)
        basis = (rounded @ wide)[train]
        basis = qr(basis - basis.mean(axis=0), mode="economic", check_finite=False)[0]
    del rounded
    exact = basis.astype(np.float64)
    exact -= exact.mean(axis=0)
    exact = np.linalg.qr(exact)[0]
    # Vectors of a basis with less than full rank need not add up to 0.
    exact -= exact.mean(axis=0)
    turned = np.zeros((n, wide.shape[1]))
    turned[train] = exact
    turned = products @ turned
    turned -= turned[train].mean(axis=0)
    values, turn = np.linalg.eigh(exact.T @ turned[train])
    leading = turn[:, ::-1][:, :most]
    return values[::-1][:most], exact @ leading, turned @ leading


@dataclass(frozen=True, eq=False)
class Basis:
    """The span of the training images in one layer.

    Attributes:
        coordinates: float32 array (n_images, r) of all images, the directions of most variance
            first; over the training images their mean is 0 and their mean square 1.
        train: places of the training images.
        weights: float64 array (r, n_train), so that the directions are V = Xc^T weights^T, with
            Xc the centred training activations; None where directions are kept instead.
        directions: float array (D, r), or None.
        mean: what activations are taken less, float64 (D,); None: the mean of ``train``.
        scale: what coordinates along directions of unit length were multiplied by.
    """

    coordinates: "np.ndarray | RowsOnDisk"
    train: np.ndarray
    weights: np.ndarray | None
    directions: np.ndarray | None
    mean: np.ndarray | None = None
    scale: float = 1.0

    @property
    def n_directions(self) -> int:
        """In how many directions the training images differ; 0 if they are all the same."""
        return self.coordinates.shape[1] if self.coordinates[self.train].any() else 0

    def leading(self, n: int | None) -> "Basis":
        """The first n directions alone, scaled so that their mean square is 1; None: all."""
        if n is None or n >= self.coordinates.shape[1] or self.directions is None:
            return self
        kept = np.asarray(self.coordinates)[:, :n]
        size = float(np.sqrt(np.square(kept[self.train], dtype=np.float64).mean())) or 1.0
        return replace(
            self,
            coordinates=kept / np.float32(size),
            directions=self.directions[:, :n] / np.float32(size),
            scale=self.scale / size,
        )

    def fold(
        self, weights: np.ndarray, activations: LayerActivations
    ) -> tuple[np.ndarray, np.ndarray]:
        """Weights on coordinates as weights on activations.

        The coordinates of x are (x - mean) V, so that ``weights`` on them are F = weights V^T on
        x - mean. The activations are read once, a few images at a time; beside the result, memory
        holds what `LayerActivations.blocks` gives at a time.

        Args:
            weights: float64 (units, r).

        Returns:
            F, float64 (units, D), and the mean of the training images, float64 (D,).
        """
        if self.weights is not None:
            return weights_of_features(weights @ self.weights, self.train, activations)
        assert self.directions is not None
        if self.mean is not None:
            return weights @ self.directions.T.astype(np.float64), self.mean
        none = np.zeros((0, len(self.train)))
        return weights @ self.directions.T, weights_of_features(none, self.train, activations)[1]


def weights_of_features(
    weights: np.ndarray, train: np.ndarray, activations: LayerActivations
) -> tuple[np.ndarray, np.ndarray]:
    """Weights of training images as weights of features; the activations are read once, by blocks.

    Args:
        weights: float64 (units, n_train), of the products with the centred training images.
        train: their places.

    Returns:
        The weights on activations less the mean of the training images, float64 (units, D), and
        this mean, float64 (D,).
    """
    mean, folded = np.empty(activations.shape[1]), np.empty((len(weights), activations.shape[1]))
    for block, of_all in activations.feature_blocks(FEATURES_A_BLOCK):
        some = of_all[train].astype(np.float64)
        mean[block] = some.mean(axis=0)
        some -= mean[block]
        folded[:, block] = weights @ some
    return folded, mean


def fit_basis(
    span: LayerSpan,
    train: np.ndarray,
    most: int | None = None,
    explained: float = 1.0,
) -> Basis:
    """The basis of a layer on some training images.

    Args:
        train: places of the training images.
        most: no more directions than these, those of most variance.
        explained: as many directions as have this share of the variance of the training images.
    """
    features, n_spanned = span.features, len(train)
    if features is not None:
        n_spanned = min(n_spanned, features.shape[1])
    noise = _ROUNDING**2 * float(span.norms[train].mean())
    weights = directions = None
    if most is not None and explained == 1 and are_few(most, n_spanned):
        values, vectors, projected = leading_directions(span.products, train, most)
        kept = over_rounding(values, noise)
        lengths = np.sqrt(values[kept])
        coordinates, weights = projected[:, kept] / lengths, (vectors[:, kept] / lengths).T
    elif features is None:
        toward_train = centred_columns(span.products, train)
        values, vectors = eigenvectors(toward_train[train], noise)
        n_kept = _n_kept(values, most, explained)
        weights = (vectors[:, :n_kept] / np.sqrt(values[:n_kept])).T
        coordinates = toward_train @ weights.T
    else:
        moved = features - features[train].mean(axis=0, dtype=np.float64)
        values, vectors = eigenvectors(moved[train].T @ moved[train], noise)
        directions = vectors[:, : _n_kept(values, most, explained)]
        coordinates = moved @ directions
    if coordinates.size == 0:  # the layer says the same of every image
        coordinates, weights = np.zeros((span.n_images, 1)), np.zeros((1, len(train)))
        directions, scale = None, 1.0
    else:
        scale = float(1 / np.sqrt(np.mean(coordinates[train] ** 2)))
    return Basis(
        coordinates=(coordinates * scale).astype(np.float32),
        train=train,
        weights=None if weights is None else weights * scale,
        directions=None if directions is None else directions * scale,
    )


def fit_sampled_basis(
    layer: LayerActivations,
    train: np.ndarray,
    sample: np.ndarray,
    most: int,
    folder: Path | None = None,
) -> Basis:
    """The leading directions of many images, from some of them; the layer is read by blocks of images.

    A layer of no more features than ``most`` keeps all directions of the training images, found from all
    of them.

    Args:
        train: places of the training images.
        sample: those that the directions of a larger layer are found from; fewer where they would not
            fit into 512 MiB.
        most: no more directions than these.
        folder: where the coordinates lie; None: in memory.
    """
    n, n_features = layer.shape
    if n_features <= most:
        mean, directions = _all_directions(layer, train)
    else:
        few = max(_FEWEST, _SAMPLE_BYTES // (8 * n_features))
        mean, directions = _sampled_directions(layer, sample[:: -(-len(sample) // few)], most)
    coordinates = rows_of_images((n, max(directions.shape[1], 1)), folder)
    # All directions are an exact rotation, which float32 would blur; the leading ones are not.
    dtype = np.float64 if n_features <= most else np.float32
    turn = directions.astype(dtype)
    for places, rows in layer.blocks() if directions.size else ():
        coordinates[places] = (rows - mean).astype(dtype, copy=False) @ turn
    lengths = np.square(coordinates[train], dtype=np.float64).mean() if directions.size else 1.0
    scale = float(1 / np.sqrt(lengths)) if lengths > 0 else 1.0
    coordinates[:] = coordinates[:] * np.float32(scale)
    if not directions.size:  # the layer says the same of every image
        directions = np.zeros((n_features, 1), np.float32)
    return Basis(coordinates, train, None, directions * np.float32(scale), mean, scale)


def _all_directions(layer: LayerActivations, train: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean of the training images, and the directions in which they differ, float32 (D, r)."""
    n, n_features = layer.shape
    is_train = np.zeros(n, bool)
    is_train[train] = True
    total, products, lengths = np.zeros(n_features), np.zeros((n_features, n_features)), 0.0
    # Around the first image, so that little cancels.
    first = layer.read(train[:1])[0].astype(np.float64)
    for places, rows in layer.blocks():
        some = rows[is_train[places]]
        lengths += float(np.square(some, dtype=np.float64).sum())
        moved = some - first
        total += moved.sum(axis=0)
        products += moved.T @ moved
    moved_mean = total / len(train)
    products -= len(train) * np.outer(moved_mean, moved_mean)
    noise = _ROUNDING**2 * lengths / len(train)
    return first + moved_mean, eigenvectors(products, noise)[1].astype(np.float32)


def _sampled_directions(
    layer: LayerActivations, sample: np.ndarray, most: int
) -> tuple[np.ndarray, np.ndarray]:
    """Mean of the sampled images, and their leading directions, float32 (D, r)."""
    rows = layer.read(sample)
    mean = rows.mean(axis=0, dtype=np.float64)
    noise = _ROUNDING**2 * float(np.einsum("ij,ij->i", rows, rows, dtype=np.float64).mean())
    rows -= mean.astype(np.float32)
    values, vectors = eigenvectors((rows @ rows.T).astype(np.float64), noise)
    turned = (vectors[:, :most] / np.sqrt(values[:most])).astype(np.float32)
    return mean, rows.T @ turned


def _n_kept(values: np.ndarray, most: int | None, explained: float) -> int:
    """How many eigenvalues, from the largest down, are asked for."""
    before = np.cumsum(values) - values
    n_explained = len(values) if explained == 1 else int((before < explained * values.sum()).sum())
    return n_explained if most is None else min(n_explained, most)
