"""The baselines against scikit-learn on the raw features."""

import numpy as np
import pytest
from sklearn.cross_decomposition import PLSRegression
from sklearn.kernel_ridge import KernelRidge
from sklearn.linear_model import LinearRegression, RidgeCV
from sklearn.preprocessing import KernelCenterer

from nrp_onnx.activations.layer_file import LoadedLayer
from nrp_onnx.predictor.baselines import BASELINES, arc_cosine, fit_baselines
from nrp_onnx.predictor.image_products import read_span, spectrum_of_products
from nrp_onnx.predictor.ridge import ALPHAS, Responses, choose_alphas

TRAIN, TEST = np.arange(100), np.arange(100, 120)


def _data(n_features: tuple[int, ...], n_sites: int = 4) -> tuple[list[np.ndarray], np.ndarray]:
    """Layers of very different scales, and responses to some features of each with noise."""
    rng = np.random.default_rng(0)
    layers, y = [], 0.5 * rng.standard_normal((120, n_sites))
    for place, n in enumerate(n_features):
        x = rng.standard_normal((120, n)) * np.linspace(3, 0.2, n)
        y += x[:, :10] @ rng.standard_normal((10, n_sites)) / 5
        layers.append((20.0**place * x + place).astype(np.float32))
    return layers, y


def _joined(layers: list[np.ndarray]) -> np.ndarray:
    """All layers around the mean of the training images, each to mean square distance 1 from it."""
    parts = []
    for x in layers:
        moved = x.astype(np.float64) - x[TRAIN].mean(axis=0, dtype=np.float64)
        parts.append(moved / np.sqrt((moved[TRAIN] ** 2).sum(axis=1).mean()))
    return np.hstack(parts)


def _predict(layers: list[np.ndarray], y: np.ndarray) -> dict[str, np.ndarray]:
    spans = [read_span(LoadedLayer(x)) for x in layers]
    return fit_baselines(spans, y[TRAIN], TRAIN, TEST).predictions


@pytest.mark.parametrize("n_features", [(12,), (30, 15), (400,), (300, 12, 500)])
def test_linear_baselines_are_those_of_scikit_learn(n_features: tuple[int, ...]) -> None:
    layers, y = _data(n_features)
    found, x = _predict(layers, y), _joined(layers)
    expected = {
        "mean": np.repeat(y[TRAIN].mean(axis=0)[None], len(TEST), axis=0),
        "ols": LinearRegression().fit(x[TRAIN], y[TRAIN]).predict(x[TEST]),
        "ridge": RidgeCV(ALPHAS * (x[TRAIN] ** 2).sum(axis=1).mean(), alpha_per_target=True)
        .fit(x[TRAIN], y[TRAIN])
        .predict(x[TEST]),
        "pls": PLSRegression(min(25, x.shape[1]), scale=False, max_iter=5000, tol=1e-12)
        .fit(x[TRAIN], y[TRAIN])
        .predict(x[TEST]),
    }
    for name, predicted in expected.items():
        np.testing.assert_allclose(found[name], predicted, atol=2e-4, err_msg=name)


def test_alphas_far_from_the_choice_of_generalised_cross_validation_are_found() -> None:
    """Outliers make leverages differ, and the search begins up to 9 values from where it has to end."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((120, 300))
    x[:5] *= 12
    y = 0.3 * x[:, :8] @ rng.standard_normal((8, 12)) + 2 * rng.standard_normal((120, 12))
    y[:5] += 20 * rng.standard_normal((5, 12))
    x -= x.mean(axis=0)
    spectrum = spectrum_of_products(x @ x.T)
    expected = RidgeCV(ALPHAS * (x**2).sum(axis=1).mean(), alpha_per_target=True).fit(x, y).alpha_
    np.testing.assert_allclose(
        choose_alphas(spectrum, Responses.of(y, spectrum))[0], expected, rtol=1e-9
    )
    assert expected.max() / expected.min() > 1e4


@pytest.mark.slow
@pytest.mark.parametrize("n_features", [(12,), (300, 500)])
def test_kernel_ridge_is_that_of_scikit_learn(n_features: tuple[int, ...]) -> None:
    """Leave-one-out by leaving one out, and KernelRidge on a kernel that is written out."""
    layers, y = _data(n_features)
    x = _joined(layers)
    kernel = np.array([[_arc_cosine_of_pair(a, b) for b in x[TRAIN]] for a in x])
    centerer = KernelCenterer().fit(kernel[TRAIN])
    of_train, of_test = centerer.transform(kernel[TRAIN]), centerer.transform(kernel[TEST])
    alphas = ALPHAS * np.trace(of_train) / len(TRAIN)
    errors = np.zeros((len(alphas), y.shape[1]))
    for out in TRAIN:
        rest = np.delete(TRAIN, out)
        again = KernelCenterer().fit(of_train[np.ix_(rest, rest)])
        left = again.transform(of_train[np.ix_(rest, rest)])
        one = again.transform(of_train[out, rest][None])
        mean = y[rest].mean(axis=0)
        for place, alpha in enumerate(alphas):
            model = KernelRidge(alpha=alpha, kernel="precomputed").fit(left, y[rest] - mean)
            errors[place] += ((model.predict(one) + mean - y[out]) ** 2)[0]
    best = alphas[errors.argmin(axis=0)]
    mean = y[TRAIN].mean(axis=0)
    model = KernelRidge(alpha=best, kernel="precomputed").fit(of_train, y[TRAIN] - mean)
    np.testing.assert_allclose(
        _predict(layers, y)["kernel"], model.predict(of_test) + mean, atol=2e-4
    )


def _arc_cosine_of_pair(a: np.ndarray, b: np.ndarray) -> float:
    lengths = float(np.linalg.norm(a) * np.linalg.norm(b))
    angle = np.arccos(np.clip(a @ b / lengths, -1, 1))
    return float(lengths * (np.sin(angle) + (np.pi - angle) * np.cos(angle)) / np.pi)


def test_arc_cosine_kernel_is_that_of_many_random_relus() -> None:
    rng = np.random.default_rng(1)
    x = rng.standard_normal((4, 3))
    hidden = np.maximum(x @ rng.standard_normal((3, 400_000)), 0)
    # Cho & Saul's kernel is twice the mean product.
    np.testing.assert_allclose(arc_cosine(x @ x.T), 2 * hidden @ hidden.T / 400_000, rtol=0.03)


def test_without_kernel_ridge_the_others_are_the_same() -> None:
    layers, y = _data((300, 12))
    spans = [read_span(LoadedLayer(x)) for x in layers]
    found = fit_baselines(spans, y[TRAIN], TRAIN, TEST, kernel_ridge=False).predictions
    every = _predict(layers, y)
    assert list(every) == [*found, "kernel"]
    for name, predicted in found.items():
        np.testing.assert_allclose(predicted, every[name], atol=1e-12, err_msg=name)


@pytest.mark.parametrize("name", BASELINES)
def test_missing_responses_are_left_out_per_site(name: str) -> None:
    layers, y = _data((200, 150))
    y[:10, 1] = np.nan
    found = _predict(layers, y)[name]
    spans = [read_span(LoadedLayer(x)) for x in layers]
    whole = fit_baselines(spans, y[TRAIN][:, [0, 2, 3]], TRAIN, TEST).predictions[name]
    np.testing.assert_allclose(found[:, [0, 2, 3]], whole, atol=1e-8)
    x, rows = _joined(layers), TRAIN[10:]
    if name == "ols":
        alone = LinearRegression().fit(x[rows], y[rows, 1]).predict(x[TEST])
        np.testing.assert_allclose(found[:, 1], alone, atol=2e-4)
    elif name == "ridge":
        centred = x[rows] - x[rows].mean(axis=0)
        alphas = ALPHAS * (centred**2).sum(axis=1).mean()
        alone = RidgeCV(alphas).fit(x[rows], y[rows, 1]).predict(x[TEST])
        np.testing.assert_allclose(found[:, 1], alone, atol=2e-4)
    elif name == "mean":
        np.testing.assert_allclose(found[0], np.nanmean(y[TRAIN], axis=0))


@pytest.mark.parametrize("n_features", [20, 200])
def test_a_site_recorded_at_images_that_are_alike_has_the_mean(n_features: int) -> None:
    """What rounding leaves between them is no activation."""
    layers, y = _data((n_features,))
    for alike in ([0, 1, 2], [5, 20, 40, 60, 80]):
        layers[0][alike] = layers[0][alike[0]]
        some = y.copy()
        some[np.setdiff1d(TRAIN, alike), 1] = np.nan
        for name, found in _predict(layers, some).items():
            np.testing.assert_allclose(found[:, 1], some[alike, 1].mean(), err_msg=name)


def test_images_that_no_layer_tells_apart_leave_the_mean() -> None:
    y = _data((10,))[1]
    for name, found in fit_baselines([], y[TRAIN], TRAIN, TEST).predictions.items():
        expected = np.repeat(y[TRAIN].mean(axis=0)[None], 20, axis=0)
        np.testing.assert_allclose(found, expected, err_msg=name)
