"""The arc-cosine kernel of order 1: inner products in an infinitely wide layer of ReLUs."""

import numpy as np


def arc_cosine(products: np.ndarray) -> np.ndarray:
    """k(x, y) = |x| |y| (sin t + (pi - t) cos t) / pi, with t the angle between x and y.

    Cho & Saul 2009, equation 6 with n = 1. It is what a hidden layer of ReLUs with random weights
    makes of inner products as its width grows, so kernel ridge with it is such a network whose last
    layer alone is trained: a non-linear yardstick without any choice of sizes or rates.

    Args:
        products: float64 (n, n), inner products of the images.

    Returns:
        float64 (n, n).
    """
    lengths = np.sqrt(np.maximum(products.diagonal(), 0))
    both = np.outer(lengths, lengths)
    cosine = np.divide(products, both, out=np.zeros_like(products), where=both > 0)
    np.clip(cosine, -1, 1, out=cosine)
    # sin t = sqrt(1 - cos^2 t); taken so that no two large arrays more are held.
    kernel: np.ndarray = np.arccos(cosine)
    np.subtract(np.pi, kernel, out=kernel)
    kernel *= cosine
    np.square(cosine, out=cosine)
    np.subtract(1, cosine, out=cosine)
    kernel += np.sqrt(cosine, out=cosine)
    kernel *= both
    kernel /= np.pi
    return kernel
