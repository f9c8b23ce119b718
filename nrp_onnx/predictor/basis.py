"""Coordinates of activations in the span of the training images.

N images span at most N - 1 directions around their mean, however many features D there are. With
the centred training activations X = U S V^T, a linear map of X sees only U S; so heads and baselines
are fitted on U S (N x r) and V is folded back into the weights on export. Rotating the features
changes no prediction of least squares, ridge or PLS.
"""

from dataclasses import dataclass

import numpy as np
import scipy.linalg

#: Directions whose share of the largest eigenvalue is below this are rounding noise of float32.
_TOLERANCE = 1e-6
#: So are those whose spread over all training images is below this part of the length of the mean.
_ROUNDING = 4 * float(np.finfo(np.float32).eps)
_SMALLEST = 1e-18


@dataclass(frozen=True)
class Basis:
    """The span of the training images in one layer.

    Attributes:
        coordinates: float32 array (n_images, r) of all images; over the training images their
            mean is 0 and their mean square 1.
        mean: float64 array (D,), of the training images.
        weights: float64 array (r, n_train), so that the directions are V = Xc^T weights^T, with
            Xc the centred training activations; None where directions are kept instead.
        directions: float64 array (D, r), or None.
    """

    coordinates: np.ndarray
    mean: np.ndarray
    train: np.ndarray
    weights: np.ndarray | None
    directions: np.ndarray | None

    @property
    def n_directions(self) -> int:
        """In how many directions the training images differ; 0 if they are all the same."""
        return self.coordinates.shape[1] if self.coordinates.any() else 0

    def projection(self, activations: np.ndarray) -> np.ndarray:
        """The matrix P of shape (D, r) with coordinates = (x - mean) P."""
        if self.directions is not None:
            return self.directions
        assert self.weights is not None
        centred = activations[self.train].astype(np.float64) - self.mean
        product: np.ndarray = centred.T @ self.weights.T
        return product


def gram(activations: np.ndarray) -> np.ndarray | None:
    """X X^T of all images, float64 (n, n), around their mean; None where D is not over n.

    One Gram matrix serves every fold: each takes its rows and centres them again.
    """
    if activations.shape[1] <= activations.shape[0]:
        return None
    centred = activations - activations.mean(axis=0, dtype=np.float64).astype(np.float32)
    # Squares of large activations leave float32, so the product is taken at a scale near 1; a power
    # of two, which rounds nothing.
    exponent = int(np.frexp(max(float(centred.max()), -float(centred.min())))[1])
    np.ldexp(centred, -exponent, out=centred)
    product: np.ndarray = (centred @ centred.T).astype(np.float64)
    scaled: np.ndarray = np.ldexp(product, 2 * exponent)
    return scaled


def fit_basis(activations: np.ndarray, gram_of_all: np.ndarray | None, train: np.ndarray) -> Basis:
    """The basis of a layer on some training images.

    Args:
        activations: float32 (n_images, D).
        gram_of_all: what `gram` gave for them.
        train: places of the training images.
    """
    mean = activations[train].mean(axis=0, dtype=np.float64)
    noise = _ROUNDING**2 * float(mean @ mean)
    if gram_of_all is None:
        centred = activations.astype(np.float64) - mean
        values, vectors = _leading(centred[train].T @ centred[train], noise)
        coordinates = centred @ vectors
        weights, directions = None, vectors
    else:
        rows = gram_of_all[:, train]
        kernel = rows - rows.mean(axis=1, keepdims=True)
        kernel = kernel - kernel[train].mean(axis=0)
        values, vectors = _leading(kernel[train], noise)
        weights, directions = (vectors / np.sqrt(values)).T, None
        coordinates = kernel @ weights.T
    if values.size == 0:  # the layer says the same of every image
        values, scale = np.ones(1), 0.0
        coordinates = np.zeros((len(activations), 1))
        directions, weights = np.zeros((activations.shape[1], 1)), None
    else:
        scale = float(np.sqrt(len(train) * len(values) / values.sum()))
    return Basis(
        coordinates=(coordinates * scale).astype(np.float32),
        mean=mean,
        train=train,
        weights=None if weights is None else weights * scale,
        directions=None if directions is None else directions * scale,
    )


def _leading(symmetric: np.ndarray, noise: float) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvalues from the largest down and their vectors, those of rounding noise left out.

    Where `_TOLERANCE` finds noise beside a signal, ``noise`` finds it where there is no signal: in a
    layer that is the same for every image but for rounding.
    """
    values, vectors = scipy.linalg.eigh((symmetric + symmetric.T) / 2)
    values, vectors = values[::-1], vectors[:, ::-1]
    keep = values > max(values[0] * _TOLERANCE, noise, _SMALLEST)
    return values[keep], vectors[:, keep]
