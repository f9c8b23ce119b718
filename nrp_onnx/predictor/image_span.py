"""Coordinates of all images in the span of their activations, over all layers side by side.

N images lie in N - 1 directions around their mean, however many features D there are. Coordinates in
these directions have the inner products of the activations themselves, so any linear method that is
not scaled gives the same predictions from them: they are the activations, rotated. Such a method sees
the training images through their inner products only; where its axes come from changes nothing, so
axes that all images determine leak nothing about held-out ones. One rotation serves all splits.
"""

from collections.abc import Sequence

import numpy as np
from scipy.linalg import lapack

from nrp_onnx.predictor.layer_span import LayerSpan

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
