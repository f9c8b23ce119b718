"""The baselines: mean, least squares, ridge, PLS and kernel ridge, from the same activations.

One eigendecomposition of the inner products of the training images serves all linear ones, and one
of their arc-cosine kernel the kernel ridge.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from ikpls.numpy import PLS
from sklearn.model_selection import KFold

from nrp_onnx.predictor.image_products import (
    JoinedSpan,
    LayerSpan,
    Spectrum,
    centred,
    join_layers,
    spectrum_of_products,
)
from nrp_onnx.predictor.linear_path import LinearPath, PrimalPath
from nrp_onnx.predictor.ridge import Responses, fit_ridge, response_patterns
from nrp_onnx.threads import map_on_cores

LINEAR_BASELINES = ("mean", "ols", "ridge", "pls")
BASELINES = (*LINEAR_BASELINES, "kernel")
PLS_COMPONENTS = 25
#: Parts of the images that are left out in turn for held-out rates of PLS.
_PARTS = 5
#: Images whose squared distances from their mean are all below this do not differ; the mean over
#: training images is 1 for each layer.
_ROUNDING = 1e-12
#: Arrays of n x n in float64 that the fits of one pattern of missing responses need, for n images.
_ARRAYS = 5

Predictions = dict[str, np.ndarray]


def arc_cosine(products: np.ndarray) -> np.ndarray:
    """k(x, y) = |x| |y| (sin t + (pi - t) cos t) / pi, with t the angle between x and y.

    Cho & Saul 2009, equation 6 with n = 1: the inner products of images after an infinitely wide
    hidden layer of ReLUs with random weights. Kernel ridge with it is a network of which only the last
    layer is trained: a non-linear baseline without sizes or learning rates to choose.

    Args:
        products: float64 (n, n), inner products of the images.

    Returns:
        float64 (n, n).
    """
    lengths = np.sqrt(np.maximum(products.diagonal(), 0))
    return arc_cosine_of(products, np.outer(lengths, lengths))


def arc_cosine_of(products: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """`arc_cosine` of some inner products, given |x| |y| for each of them in ``lengths``."""
    cosine = np.divide(products, lengths, out=np.zeros_like(products), where=lengths > 0)
    np.clip(cosine, -1, 1, out=cosine)
    # sin t = sqrt(1 - cos^2 t), computed in place: each of these arrays is large.
    kernel: np.ndarray = np.arccos(cosine)
    np.subtract(np.pi, kernel, out=kernel)
    kernel *= cosine
    np.square(cosine, out=cosine)
    np.subtract(1, cosine, out=cosine)
    kernel += np.sqrt(cosine, out=cosine)
    kernel *= lengths
    kernel /= np.pi
    return kernel


def predict_pls(x: np.ndarray, y: np.ndarray, new: np.ndarray) -> np.ndarray:
    """Fit `PLS_COMPONENTS` components, or as many as there are directions, and predict.

    Args:
        x: training coordinates (n_train, r), r > 0; the result is computed in their dtype. They are
            overwritten, and so is ``y``.
        y: training responses (n_train, n_sites) of the same dtype, none missing.
        new: (n_new, r).

    Returns:
        Array (n_new, n_sites) of the dtype of ``x``.
    """
    components = min(PLS_COMPONENTS, x.shape[1], len(x) - 1)
    model = PLS(algorithm=1, scale_X=False, scale_Y=False, copy=False, dtype=x.dtype.type)
    model.fit(x, y, components)
    predicted: np.ndarray = model.predict(new, n_components=components)
    return predicted.reshape(len(new), y.shape[1])


@dataclass(frozen=True, eq=False)
class Baselines:
    """Fitted baselines.

    Attributes:
        predictions: for each of `BASELINES`, or of `LINEAR_BASELINES` alone, float64
            (n_new, n_sites).
        held_out: for each baseline its rates of the training images when these are left out, float64
            (n_train, n_sites): one at a time, for PLS a fifth at a time; NaN where there is no response.
            PLS is among them only if it was asked for.
        ridge: the ridge regression with its weights; None where the images differ in no layer.
    """

    predictions: Predictions
    held_out: Predictions
    ridge: LinearPath | PrimalPath | None


def fit_baselines(
    layers: Sequence[LayerSpan],
    y: np.ndarray,
    train: np.ndarray,
    new: np.ndarray,
    kernel_ridge: bool = True,
    hold_out: bool = False,
) -> Baselines:
    """Fit every baseline on the training images and predict the new ones.

    Sites that miss responses to the same images are fitted together, without these images. So the
    fits of one fold are repeated for each pattern of missing responses.

    Args:
        layers: those in which the training images differ; without any, all predict the mean.
        y: float64 (n_train, n_sites), NaN = missing.
        train, new: places of images.
        kernel_ridge: whether to fit kernel ridge, which takes as long as all others together.
        hold_out: whether PLS is to give held-out rates too, which takes five more fits.
    """
    names = BASELINES if kernel_ridge else LINEAR_BASELINES
    found = {name: np.empty((len(new), y.shape[1])) for name in names}
    held_out = {name: np.full(y.shape, np.nan) for name in names if hold_out or name != "pls"}
    joined = join_layers(layers, train) if layers else None
    path = LinearPath.empty(joined, train, y.shape[1]) if joined else None
    patterns = list(response_patterns(~np.isnan(y)))

    def fit_pattern(pattern: tuple[np.ndarray, np.ndarray]) -> None:
        rows, sites = pattern
        recorded = y[np.ix_(rows, sites)]
        n = len(recorded)
        predicted = dict.fromkeys(names, np.repeat(recorded.mean(0)[None], len(new), axis=0))
        left_out = dict.fromkeys(names, (n * recorded.mean(0) - recorded) / max(n - 1, 1))
        if path:
            path.at_mean[sites] = recorded.mean(0)
            path.rates[np.ix_(new, sites)] = predicted["mean"]
        around = joined.around(train[rows]) if joined else None
        if around and path and around.products.diagonal()[train[rows]].max() > _ROUNDING:
            fits = [partial(_fit_linear, around, recorded, train, rows, new, sites, path, hold_out)]
            if kernel_ridge:
                fits.append(partial(_fit_kernel, around, recorded, train[rows], new))
            # Cores share the fits of one pattern, or the patterns.
            fitted = map_on_cores(_call, fits) if len(patterns) == 1 else map(_call, fits)
            for rates_by_name, left_out_by_name in fitted:
                predicted |= rates_by_name
                left_out |= left_out_by_name
        for name, rates in predicted.items():
            found[name][:, sites] = rates
        for name, rates in held_out.items():
            rates[np.ix_(rows, sites)] = left_out[name]

    if len(patterns) == 1:
        fit_pattern(patterns[0])
    else:
        n_images = layers[0].n_images if layers else 0
        map_on_cores(fit_pattern, patterns, _ARRAYS * 8 * n_images**2)
    return Baselines(found, held_out, path)


def _call(fit: Callable[[], tuple[Predictions, Predictions]]) -> tuple[Predictions, Predictions]:
    return fit()


def _fit_linear(
    around: JoinedSpan,
    y: np.ndarray,
    train: np.ndarray,
    rows: np.ndarray,
    new: np.ndarray,
    sites: np.ndarray,
    path: LinearPath,
    hold_out: bool,
) -> tuple[Predictions, Predictions]:
    fitted = train[rows]
    spectrum = around.spectrum(fitted)
    responses = Responses.of(y, spectrum)
    ridge = fit_ridge(spectrum, responses)
    path.set_sites(sites, rows, around, ridge, new)
    of_new = spectrum.coordinates_of(around.products[np.ix_(new, fitted)])
    predicted = {
        "ols": least_squares(spectrum, responses, of_new),
        "ridge": path.rates[np.ix_(new, sites)],
        "pls": predict_pls_of(spectrum.coordinates, responses, of_new),
    }
    left_out = {"ols": leave_one_out_of_least_squares(spectrum, responses), "ridge": ridge.held_out}
    if hold_out:
        left_out["pls"] = held_out_pls(spectrum.coordinates, y)
    return predicted, left_out


def predict_pls_of(x: np.ndarray, responses: Responses, new: np.ndarray) -> np.ndarray:
    """Rates of new images by PLS, float64 (n_new, n_sites), from coordinates around the mean."""
    # PLS has few components of large variance, so float32 moves a rate by no more than 1e-5 to 1e-3
    # standard deviations.
    single = (a.astype(np.float32) for a in (x, responses.moved, new))
    rates: np.ndarray = responses.mean + predict_pls(*single)
    return rates


def held_out_pls(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Rates of each fifth of the images from a fit to the others, float64 (n, n_sites)."""
    rates = np.empty(y.shape)
    parts = KFold(min(_PARTS, len(y)), shuffle=True, random_state=0)
    for fit, left_out in parts.split(x):
        mean = x[fit].mean(axis=0)
        rates_mean = y[fit].mean(axis=0)
        moved = Responses(y[fit] - rates_mean, np.empty(0), rates_mean)
        rates[left_out] = predict_pls_of(x[fit] - mean, moved, x[left_out] - mean)
    return rates


def _fit_kernel(
    around: JoinedSpan, y: np.ndarray, train: np.ndarray, new: np.ndarray
) -> tuple[Predictions, Predictions]:
    kernel = centred(arc_cosine(around.products), train)
    spectrum = spectrum_of_products(kernel[np.ix_(train, train)])
    ridge = fit_ridge(spectrum, Responses.of(y, spectrum))
    predicted = ridge.predict(kernel[np.ix_(new, train)])
    return {"kernel": predicted}, {"kernel": ridge.held_out}


def least_squares(spectrum: Spectrum, responses: Responses, new: np.ndarray) -> np.ndarray:
    """Least squares with an intercept; with more features than images, the solution of least norm.

    Args:
        new: coordinates of new images in the directions of the spectrum, float64 (n_new, r).

    Returns:
        Float64 (n_new, n_sites).
    """
    weights = responses.turned / np.sqrt(spectrum.squares)[:, None]
    predicted: np.ndarray = new @ weights + responses.mean
    return predicted


def leave_one_out_of_least_squares(spectrum: Spectrum, responses: Responses) -> np.ndarray:
    """Of each training image the rates of least squares on all others, float64 (n, n_sites).

    Least squares is the limit of ridge at an alpha of 0: with fewer directions than images the residual
    is divided by one less its leverage; else it is (K^-1 y)_i / (K^-1)_ii with the pseudo-inverse of
    the inner products.
    """
    n, rank = spectrum.left.shape
    moved, left = responses.moved, spectrum.left
    if rank < n - 1:
        room = 1 - 1 / n - np.einsum("ij,ij->i", left, left)
        residuals = (moved - left @ responses.turned) / np.maximum(room, _ROUNDING)[:, None]
    else:
        weights = left @ (responses.turned / spectrum.squares[:, None])
        residuals = weights / np.einsum("ij,j->i", left**2, 1 / spectrum.squares)[:, None]
    held_out: np.ndarray = moved - residuals + responses.mean
    return held_out
