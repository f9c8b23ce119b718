"""Principal components of a layer, as the reduction ``pca:K`` needs them."""

from dataclasses import dataclass

import numpy as np

#: Features that are centred and multiplied at a time.
_BLOCK = 8192

#: A variance below this share of the largest is rounding of float32 activations.
_SMALLEST = 1e-12


# Compared by identity: == of two arrays is no truth value.
@dataclass(frozen=True, eq=False)
class PrincipalComponents:
    """Directions of a layer's activations: x becomes (x - mean) @ directions.

    Attributes:
        mean: float32 (n_features,), of the images that it was fitted on.
        directions: float32 (n_features, k), orthonormal columns, the widest first.
    """

    mean: np.ndarray
    directions: np.ndarray


def fit_components(activations: np.ndarray, k: int) -> PrincipalComponents:
    """The first k principal components of a sample.

    With the centred sample X_c = U S V^T, V = X_c^T U S^-1: an eigendecomposition of the
    n x n matrix X_c X_c^T instead of one of n_features x n_features.

    Args:
        activations: float32 (n, n_features), n over k; it is centred in place.

    Raises:
        ValueError: if the sample spans fewer than k directions.
    """
    mean = activations.mean(axis=0, dtype=np.float64).astype(np.float32)
    activations -= mean
    gram = np.zeros((len(activations),) * 2)
    for start in range(0, activations.shape[1], _BLOCK):
        block = activations[:, start : start + _BLOCK].astype(np.float64)
        gram += block @ block.T
    variances, left = np.linalg.eigh(gram)
    variances, left = variances[::-1][:k], left[:, ::-1][:, :k]
    if len(variances) < k or variances[-1] <= variances[0] * _SMALLEST:
        spanned = int((variances > variances[0] * _SMALLEST).sum())
        raise ValueError(f"{len(activations)} images span {spanned} directions")
    # An eigenvector may point either way: its largest entry is made positive.
    left = left * np.sign(left[np.abs(left).argmax(axis=0), np.arange(k)])
    directions = np.empty((activations.shape[1], k), np.float32)
    for start in range(0, activations.shape[1], _BLOCK):
        block = activations[:, start : start + _BLOCK].astype(np.float64)
        directions[start : start + _BLOCK] = block.T @ (left / np.sqrt(variances))
    return PrincipalComponents(mean, directions)
