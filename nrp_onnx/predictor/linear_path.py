"""A linear path from all layers to the rates, beside the NRP network: ridge regression in closed form.

Its weights are kept as those of the training images (the dual form), so that they cost nothing
however many features there are, and become weights of features on export alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nrp_onnx.activations.layer_activations import LayerActivations
from nrp_onnx.predictor.basis import weights_of_features
from nrp_onnx.predictor.joined_span import join_layers, spectrum_of_features, spectrum_of_products
from nrp_onnx.predictor.layer_span import LayerSpan
from nrp_onnx.predictor.missing import response_patterns
from nrp_onnx.predictor.ridge import choose_alphas


@dataclass(frozen=True, eq=False)
class LinearPath:
    """Ridge regression on joined layers.

    Attributes:
        rates: its predictions for all images, float64 (n_images, n_sites).
        weights: of the training images, float64 (n_sites, n_train).
        at_mean: the rates at the mean of the training images, float64 (n_sites,).
        scales: for each layer, what the square root of its products was divided by.
        train: places of the training images.
    """

    rates: np.ndarray
    weights: np.ndarray
    at_mean: np.ndarray
    scales: np.ndarray
    train: np.ndarray

    def fold(self, place: int, activations: LayerActivations) -> tuple[np.ndarray, np.ndarray]:
        """Weights on a layer's activations less the mean of the training images, and this mean.

        Args:
            place: of the layer among those of the path.

        Returns:
            float64 (n_sites, D) and (D,).
        """
        return weights_of_features(self.weights / self.scales[place] ** 2, self.train, activations)


def fit_linear_path(layers: Sequence[LayerSpan], y: np.ndarray, train: np.ndarray) -> LinearPath:
    """Fit ridge, alpha per site by leave-one-out, as the baseline of that name does.

    Args:
        layers: in which the training images differ; at least one.
        y: float64 (n_train, n_sites), NaN = missing.
        train: places of images.
    """
    joined = join_layers(layers, train)
    everyone = np.arange(len(joined.products))
    rates = np.empty((len(everyone), y.shape[1]))
    weights = np.zeros((y.shape[1], len(train)))
    for rows, sites in response_patterns(~np.isnan(y)):
        around = joined.around(train[rows])
        if around.features is not None:
            spectrum = spectrum_of_features(around.features, train[rows], everyone)
        else:
            spectrum = spectrum_of_products(around.products, train[rows], everyone)
        recorded = y[np.ix_(rows, sites)]
        mean = recorded.mean(axis=0)
        turned = spectrum.left.T @ (recorded - mean)
        shrunk = turned / (spectrum.squares[:, None] + choose_alphas(spectrum, recorded))
        rates[:, sites] = spectrum.new @ (np.sqrt(spectrum.squares)[:, None] * shrunk) + mean
        # X^T U S^-1 are the directions, so that X^T (U shrunk) are the weights of the features.
        weights[np.ix_(sites, rows)] = (spectrum.left @ shrunk).T
    return LinearPath(rates, weights, rates[train].mean(axis=0), joined.scales, train)
