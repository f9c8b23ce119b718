"""The linear path beside the NRP network: ridge regression from all layers to the rates.

Its weights are kept for training images (the dual form), so their number does not depend on that of
the features; or, where images are many, for coordinates of the layers (the primal form). They become
weights of features on export.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nrp_onnx.activations.layer_file import LayerActivations
from nrp_onnx.predictor.directions import Basis, weights_of_features
from nrp_onnx.predictor.image_products import JoinedSpan
from nrp_onnx.predictor.ridge import Ridge


@dataclass(frozen=True, eq=False)
class LinearPath:
    """Ridge regression on joined layers.

    Attributes:
        rates: its predictions, float64 (n_images, n_sites); NaN for images it was not asked for.
        weights: of the products with the training images, float64 (n_sites, n_train).
        at_mean: the rates at the mean of the training images, float64 (n_sites,).
        scales: for each layer, what its activations were divided by.
        train: places of the training images.
    """

    rates: np.ndarray
    weights: np.ndarray
    at_mean: np.ndarray
    scales: np.ndarray
    train: np.ndarray

    @classmethod
    def empty(cls, joined: JoinedSpan, train: np.ndarray, n_sites: int) -> "LinearPath":
        """A path without weights, for `set_sites` to fill."""
        return cls(
            np.full((len(joined.products), n_sites), np.nan),
            np.zeros((n_sites, len(train))),
            np.zeros(n_sites),
            joined.scales,
            train,
        )

    def first_sites(self, n_sites: int) -> "LinearPath":
        """The path to the first sites alone."""
        return LinearPath(
            self.rates[:, :n_sites],
            self.weights[:n_sites],
            self.at_mean[:n_sites],
            self.scales,
            self.train,
        )

    def set_sites(
        self,
        sites: np.ndarray,
        rows: np.ndarray,
        around: JoinedSpan,
        ridge: Ridge,
        new: np.ndarray,
    ) -> None:
        """Set the weights, means and rates of some sites from a fitted ridge regression.

        Args:
            sites: their places.
            rows: which of the training images it was fitted on.
            around: the joined layers around the mean of these images.
            ridge: fitted on these images and sites.
            new: places of the images to give rates for.
        """
        fitted = self.train[rows]
        self.weights[np.ix_(sites, rows)] = ridge.weights.T
        self.rates[np.ix_(new, sites)] = ridge.predict(around.products[np.ix_(new, fitted)])
        self.at_mean[sites] = ridge.mean
        # `around` is centred on the images of ``rows``, the path on all training images.
        if len(rows) < len(self.train):
            toward = around.products[np.ix_(self.train, fitted)].mean(axis=0)
            self.at_mean[sites] += toward @ ridge.weights

    def fold(self, place: int, activations: LayerActivations) -> tuple[np.ndarray, np.ndarray]:
        """Weights on a layer's activations less the mean of the training images, and this mean.

        Args:
            place: of the layer among those of the path.

        Returns:
            float64 (n_sites, D) and (D,).
        """
        return weights_of_features(self.weights / self.scales[place] ** 2, self.train, activations)


@dataclass(frozen=True, eq=False)
class PrimalPath:
    """Ridge regression on the coordinates of layers.

    Attributes:
        bases: of the layers in which the training images differ.
        weights: of the coordinates of each layer, float64 (n_sites, k).
        at_mean: the rates where all coordinates are 0, float64 (n_sites,).
    """

    bases: Sequence[Basis]
    weights: list[np.ndarray]
    at_mean: np.ndarray

    def first_sites(self, n_sites: int) -> "PrimalPath":
        """The path to the first sites alone."""
        first = [weights[:n_sites] for weights in self.weights]
        return PrimalPath(self.bases, first, self.at_mean[:n_sites])

    def fold(self, place: int, activations: LayerActivations) -> tuple[np.ndarray, np.ndarray]:
        """Weights on a layer's activations less a mean, and this mean; as `LinearPath.fold`."""
        return self.bases[place].fold(self.weights[place], activations)


def joined_path(
    parts: Sequence[LinearPath | PrimalPath],
) -> LinearPath | PrimalPath:
    """The paths to blocks of sites as one; all of them see the same images."""
    first = parts[0]
    if len(parts) == 1:
        return first
    at_mean = np.concatenate([part.at_mean for part in parts])
    if isinstance(first, LinearPath):
        dual = [part for part in parts if isinstance(part, LinearPath)]
        return LinearPath(
            np.hstack([part.rates for part in dual]),
            np.concatenate([part.weights for part in dual]),
            at_mean,
            first.scales,
            first.train,
        )
    primal = [part for part in parts if isinstance(part, PrimalPath)]
    layers = zip(*(part.weights for part in primal), strict=True)
    return PrimalPath(first.bases, [np.concatenate(of_layer) for of_layer in layers], at_mean)
