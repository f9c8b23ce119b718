"""The baselines where images are many: on features, so that time and memory are linear in the images."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from nrp_onnx.predictor.baselines import (
    Baselines,
    Predictions,
    held_out_pls,
    least_squares,
    leave_one_out_of_least_squares,
    predict_pls_of,
)
from nrp_onnx.predictor.directions import Basis
from nrp_onnx.predictor.linear_path import PrimalPath
from nrp_onnx.predictor.nystroem import KernelFeatures, arc_cosine_kernels
from nrp_onnx.predictor.primal_ridge import Features
from nrp_onnx.predictor.ridge import Responses, response_patterns


@dataclass(frozen=True, eq=False)
class JoinedFeatures:
    """Coordinates of the images in all layers, side by side.

    Attributes:
        bases: of the layers in which the training images differ.
        features: float32 (n_images, D); the mean square distance of the training images from their
            mean is 1 in each layer.
        scales: what the coordinates of each layer were divided by, float64 (n_layers,).
    """

    bases: Sequence[Basis]
    features: np.ndarray
    scales: np.ndarray

    @classmethod
    def of(cls, bases: Sequence[Basis], train: np.ndarray) -> "JoinedFeatures":
        """Join layers."""
        widths = [basis.coordinates.shape[1] for basis in bases]
        features = np.empty((len(bases[0].coordinates), sum(widths)), np.float32)
        scales, start = [], 0
        for basis, width in zip(bases, widths, strict=True):
            own = basis.coordinates[train].var(axis=0, dtype=np.float64).sum()
            scales.append(float(np.sqrt(own)) or 1.0)
            np.divide(
                np.asarray(basis.coordinates), scales[-1], out=features[:, start : start + width]
            )
            start += width
        return cls(bases, features, np.array(scales))


Fit = Callable[[np.ndarray, np.ndarray], tuple[Predictions, Predictions]]


class LinearOnFeatures:
    """Mean, least squares, ridge and PLS; one decomposition serves all sites.

    Args:
        joined: the layers.
        train, new: places of images.
        hold_out: whether PLS is to give held-out rates, too.
    """

    def __init__(
        self, joined: JoinedFeatures, train: np.ndarray, new: np.ndarray, hold_out: bool
    ) -> None:
        self._joined, self._train, self._new, self._hold_out = joined, train, new, hold_out
        self._of_all = Features.of(joined.features, train)

    def fit(self, y: np.ndarray) -> Baselines:
        """Fit some sites; y is float64 (n_train, n_sites), NaN = missing."""
        weights = np.zeros((self._joined.features.shape[1], y.shape[1]))
        at_mean = np.zeros(y.shape[1])

        def fit(rows: np.ndarray, sites: np.ndarray) -> tuple[Predictions, Predictions]:
            recorded = y[np.ix_(rows, sites)]
            train = self._train[rows]
            complete = len(rows) == len(self._train)
            of = self._of_all if complete else Features.of(self._joined.features, train)
            responses = Responses.of(recorded, of.spectrum)
            moved = of.moved(self._joined.features[self._new])
            turned = moved @ of.right
            ridge = of.ridge(responses)
            weights[:, sites] = ridge.weights
            at_mean[sites] = ridge.mean - of.centre @ ridge.weights
            n = len(recorded)
            lengths = np.sqrt(of.spectrum.squares).astype(np.float32)
            coordinates = of.spectrum.left * lengths
            predicted = {
                "mean": np.repeat(recorded.mean(0)[None], len(self._new), axis=0),
                "ols": least_squares(of.spectrum, responses, turned),
                "ridge": moved @ ridge.weights + ridge.mean,
                "pls": predict_pls_of(coordinates, responses, turned),
            }
            left_out = {
                "mean": (n * recorded.mean(0) - recorded) / max(n - 1, 1),
                "ols": leave_one_out_of_least_squares(of.spectrum, responses),
                "ridge": ridge.held_out,
            }
            if self._hold_out:
                left_out["pls"] = held_out_pls(coordinates, recorded)
            return predicted, left_out

        names = {"mean", "ols", "ridge", *(["pls"] if self._hold_out else [])}
        found, held_out = _by_pattern(fit, y, len(self._new), (*names, "pls"), names)
        ends = np.cumsum([basis.coordinates.shape[1] for basis in self._joined.bases])[:-1]
        of_layers = np.split(weights, ends)
        apart = [w.T / s for w, s in zip(of_layers, self._joined.scales, strict=True)]
        return Baselines(found, held_out, PrimalPath(self._joined.bases, apart, at_mean))


class KernelOnFeatures:
    """Kernel ridge with the arc-cosine kernel, by landmarks; the arguments are those of its linear twin.

    Args:
        landmarks: places of the training images that stand for all of them.
    """

    def __init__(
        self, joined: JoinedFeatures, train: np.ndarray, new: np.ndarray, landmarks: np.ndarray
    ) -> None:
        self._kernels = arc_cosine_kernels(joined.features, landmarks)
        self._train, self._new, self._landmarks = train, new, landmarks
        self._of_all = KernelFeatures.of(self._kernels, landmarks, train)

    def fit(self, y: np.ndarray) -> tuple[Predictions, Predictions]:
        """Rates of the new images, and held-out ones of the training images, of some sites."""

        def fit(rows: np.ndarray, sites: np.ndarray) -> tuple[Predictions, Predictions]:
            of = self._of_all
            if len(rows) < len(self._train):
                some = self._train[rows]
                of = KernelFeatures.of(self._kernels, self._landmarks, some, of.whitening)
            ridge = of.ridge(Responses.of(y[np.ix_(rows, sites)], of.spectrum))
            rates = of.rates(self._kernels[self._new], ridge)
            return {"kernel": rates}, {"kernel": ridge.held_out}

        return _by_pattern(fit, y, len(self._new), ("kernel",), ("kernel",))


def _by_pattern(
    fit: Fit, y: np.ndarray, n_new: int, names: Sequence[str], held_out_of: Sequence[str] | set[str]
) -> tuple[Predictions, Predictions]:
    """Fits of the sites that miss responses to the same images, put together."""
    found = {name: np.empty((n_new, y.shape[1])) for name in names}
    held_out = {name: np.full(y.shape, np.nan) for name in held_out_of}
    for rows, sites in response_patterns(~np.isnan(y)):
        predicted, left_out = fit(rows, sites)
        for name, rates in predicted.items():
            found[name][:, sites] = rates
        for name, rates in left_out.items():
            held_out[name][np.ix_(rows, sites)] = rates
    return found, held_out
