"""Eigenvectors of inner products, from LAPACK."""

import numpy as np

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
