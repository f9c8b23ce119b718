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
        if layer.products is not None:
            products += layer.products
        else:
            assert layer.features is not None
            x = layer.features - layer.features.mean(axis=0, dtype=np.float64)
            products += x @ x.T
    return products


def coordinates(products: np.ndarray) -> np.ndarray:
    """Coordinates X around the mean of all images, with X X^T = ``products`` but for rounding.

    By Cholesky's decomposition with pivots, which takes a fraction of the time of eigenvectors.

    Args:
        products: inner products, float64 (n, n).

    Returns:
        float64 (n, r), with r = 0 where no two images differ.
    """
    # Float32 products are not quite centred, and the last image would take up what is left.
    centred = products - products.mean(axis=0)
    centred -= centred.mean(axis=1, keepdims=True)
    largest = float(centred.diagonal().max())
    if largest <= 0:
        return np.zeros((len(products), 0))
    factor, pivots, rank, _ = lapack.dpstrf(centred, tol=_ROUNDING * largest, lower=1)
    found = np.empty((len(products), rank))
    found[pivots - 1] = np.tril(factor)[:, :rank]
    return found
