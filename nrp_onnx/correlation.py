"""Pearson's correlation where responses may be missing."""

import numpy as np

_FEWEST = 3
#: What is left of a constant after rounding is no variance.
_ROUNDING = 1e-9


def pearson_r(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Pearson's r over images.

    Args:
        x, y: float64 arrays of shape (..., n_images, n_sites); NaN is missing, and leaves out the
            image for that site.

    Returns:
        Float64 array of shape (..., n_sites); NaN where x or y never varies, or fewer than three
        images have both.
    """
    there = ~(np.isnan(x) | np.isnan(y))
    n = there.sum(axis=-2)
    deviations, lengths, varies = [], [], n >= _FEWEST
    for values in (x, y):
        filled = np.where(there, values, 0.0)
        mean = filled.sum(axis=-2, keepdims=True) / np.maximum(n, 1)[..., None, :]
        moved = np.where(there, values - mean, 0.0)
        length = np.sqrt((moved**2).sum(axis=-2))
        varies = varies & (length > _ROUNDING * np.sqrt(n) * np.abs(filled).max(axis=-2))
        deviations.append(moved)
        lengths.append(length)
    products = (deviations[0] * deviations[1]).sum(axis=-2)
    r = np.full(products.shape, np.nan)
    np.divide(products, lengths[0] * lengths[1], out=r, where=varies)
    return r
