"""The linear baselines: mean, ordinary least squares, ridge and PLS, from the same activations."""

from collections.abc import Callable, Iterator

import numpy as np
from ikpls.numpy import PLS
from sklearn.linear_model import LinearRegression, RidgeCV

ALPHAS = np.logspace(-4, 4, 17)
PLS_COMPONENTS = 25

Baseline = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]


def predict_mean(x: np.ndarray, y: np.ndarray, x_test: np.ndarray) -> np.ndarray:
    """The mean of the training responses."""
    return np.repeat(y.mean(axis=0, keepdims=True), len(x_test), axis=0)


def predict_ols(x: np.ndarray, y: np.ndarray, x_test: np.ndarray) -> np.ndarray:
    """Least squares; of minimum norm where features outnumber images."""
    prediction: np.ndarray = LinearRegression().fit(x, y).predict(x_test)
    return prediction


def predict_ridge(x: np.ndarray, y: np.ndarray, x_test: np.ndarray) -> np.ndarray:
    """Ridge; alpha per site by leave-one-out cross-validation over the training images.

    The alphas are `ALPHAS` times the mean square norm of an image, so that they fit any scale.
    """
    alphas = ALPHAS * float((x**2).sum(axis=1).mean())
    # One SVD serves all alphas; the default decomposition costs a product of n r^2 for each.
    model = RidgeCV(alphas, alpha_per_target=True, gcv_mode="svd")
    prediction: np.ndarray = model.fit(x, y).predict(x_test)
    return prediction


def predict_pls(x: np.ndarray, y: np.ndarray, x_test: np.ndarray) -> np.ndarray:
    """Partial least squares, `PLS_COMPONENTS` components, all sites jointly, centred, not scaled."""
    components = min(PLS_COMPONENTS, x.shape[1], len(x) - 1)
    model = PLS(algorithm=1, scale_X=False, scale_Y=False)
    model.fit(x, y, components)
    prediction: np.ndarray = model.predict(x_test, n_components=components)
    return prediction


BASELINES: dict[str, Baseline] = {
    "mean": predict_mean,
    "ols": predict_ols,
    "ridge": predict_ridge,
    "pls": predict_pls,
}


def fit_predict(baseline: Baseline, x: np.ndarray, y: np.ndarray, x_test: np.ndarray) -> np.ndarray:
    """Fit a baseline where responses are missing: sites that miss the same images go together.

    Args:
        x: training activations, float64 (n_train, r).
        y: training responses, float64 (n_train, n_sites), NaN = missing.
        x_test: float64 (n_test, r).

    Returns:
        Predictions, float64 (n_test, n_sites).
    """
    if not x.any():  # activations that are the same for every image leave only the mean
        baseline = predict_mean
    prediction = np.empty((len(x_test), y.shape[1]))
    for rows, sites in _patterns(~np.isnan(y)):
        found = baseline(x[rows], y[np.ix_(rows, sites)], x_test)
        # Some estimators give one site back without its axis.
        prediction[:, sites] = found.reshape(len(x_test), len(sites))
    return prediction


def _patterns(there: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    patterns, group = np.unique(there, axis=1, return_inverse=True)
    for place in range(patterns.shape[1]):
        yield np.flatnonzero(patterns[:, place]), np.flatnonzero(group.ravel() == place)
