"""The baselines: mean, least squares, ridge, PLS and kernel ridge, from the same activations.

One eigendecomposition of the inner products of the training images serves all linear ones, and one
of their arc-cosine kernel the kernel ridge.
"""

from collections.abc import Sequence

import numpy as np

from nrp_onnx.predictor.arc_cosine import arc_cosine
from nrp_onnx.predictor.cores import map_on_cores
from nrp_onnx.predictor.joined_span import (
    JoinedSpan,
    Spectrum,
    join_layers,
    spectrum_of_features,
    spectrum_of_products,
)
from nrp_onnx.predictor.layer_span import LayerSpan, centred
from nrp_onnx.predictor.missing import response_patterns
from nrp_onnx.predictor.pls import predict_pls
from nrp_onnx.predictor.ridge import ridge

BASELINES = ("mean", "ols", "ridge", "pls", "kernel")

Predictions = dict[str, np.ndarray]


def predict_baselines(
    layers: Sequence[LayerSpan], y: np.ndarray, train: np.ndarray, new: np.ndarray
) -> Predictions:
    """Fit every baseline on the training images and predict the new ones.

    Where responses are missing, sites that miss the same images are fitted together, without them.

    Args:
        layers: in which the training images differ; if there are none, all predict the mean.
        y: float64 (n_train, n_sites), NaN = missing.
        train, new: places of images.

    Returns:
        For each of `BASELINES` float64 (n_new, n_sites).
    """
    joined = join_layers(layers, train) if layers else None
    found = {name: np.empty((len(new), y.shape[1])) for name in BASELINES}
    for rows, sites in response_patterns(~np.isnan(y)):
        recorded = y[np.ix_(rows, sites)]
        for name, predicted in _predict(joined, recorded, train[rows], new).items():
            found[name][:, sites] = predicted
    return found


def _predict(
    joined: JoinedSpan | None, y: np.ndarray, train: np.ndarray, new: np.ndarray
) -> Predictions:
    mean = np.repeat(y.mean(axis=0, keepdims=True), len(new), axis=0)
    around = None if joined is None else joined.around(train)
    if around is None or not around.products[np.ix_(train, train)].any():
        return dict.fromkeys(BASELINES, mean)

    def linear() -> Predictions:
        if around.features is not None:
            spectrum = spectrum_of_features(around.features, train, new)
        else:
            spectrum = spectrum_of_products(around.products, train, new)
        return {
            "ols": least_squares(spectrum, y),
            "ridge": ridge(spectrum, y),
            "pls": predict_pls(spectrum.coordinates, y, spectrum.new),
        }

    def kernel() -> Predictions:
        products = centred(arc_cosine(around.products), train)
        return {"kernel": ridge(spectrum_of_products(products, train, new), y)}

    first, second = map_on_cores(lambda fit: fit(), [linear, kernel])
    return {"mean": mean, **first, **second}


def least_squares(spectrum: Spectrum, y: np.ndarray) -> np.ndarray:
    """Least squares with an intercept; of minimum norm where features outnumber images."""
    mean = y.mean(axis=0)
    turned = spectrum.left.T @ (y - mean) / np.sqrt(spectrum.squares)[:, None]
    predicted: np.ndarray = spectrum.new @ turned + mean
    return predicted
