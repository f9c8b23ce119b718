"""All layers as one set of features, each scaled to the same variance, in the span of the images."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nrp_onnx.predictor.eigenvectors import eigenvectors
from nrp_onnx.predictor.layer_span import LayerSpan, centred

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
