"""Bases and baselines against scikit-learn on the raw activations."""

import numpy as np
import pytest
from sklearn.cross_decomposition import PLSRegression
from sklearn.linear_model import LinearRegression, Ridge

from nrp_onnx.predictor.baselines import (
    BASELINES,
    fit_predict,
    predict_ols,
    predict_pls,
    predict_ridge,
)
from nrp_onnx.predictor.basis import fit_basis, gram
from nrp_onnx.scoring.metrics import bootstrap_interval, median_pearson_r, median_r2


@pytest.mark.parametrize("n_features", [30, 400])
def test_linear_baselines_are_those_on_raw_features(n_features: int) -> None:
    rng = np.random.default_rng(0)
    x = (rng.standard_normal((120, n_features)) * np.linspace(3, 0.2, n_features)).astype(
        np.float32
    )
    y = x[:, :10] @ rng.standard_normal((10, 4)) + rng.standard_normal((120, 4))
    train, test = np.arange(100), np.arange(100, 120)
    z = fit_basis(x, gram(x), train).coordinates.astype(np.float64)
    raw = x.astype(np.float64)
    ols = LinearRegression().fit(raw[train], y[train]).predict(raw[test])
    np.testing.assert_allclose(predict_ols(z[train], y[train], z[test]), ols, atol=5e-3)
    pls = PLSRegression(25, scale=False, max_iter=5000, tol=1e-12).fit(raw[train], y[train])
    np.testing.assert_allclose(
        predict_pls(z[train], y[train], z[test]), pls.predict(raw[test]), atol=2e-2
    )
    # Ridge per site: some alpha of scikit-learn's gives the same, and none does much better.
    found = predict_ridge(z[train], y[train], z[test])
    grid = np.logspace(-4, 4, 17) * (raw[train] - raw[train].mean(axis=0)).var() * n_features
    candidates = [Ridge(a).fit(raw[train], y[train]).predict(raw[test]) for a in grid]
    for site in range(4):
        distances = [np.abs(c[:, site] - found[:, site]).max() for c in candidates]
        assert min(distances) < 2e-2


@pytest.mark.parametrize("name", BASELINES)
def test_missing_responses_are_left_out_per_site(name: str) -> None:
    rng = np.random.default_rng(1)
    x, y = rng.standard_normal((60, 5)), rng.standard_normal((60, 3))
    y[:10, 1] = np.nan
    found = fit_predict(BASELINES[name], x, y, x)
    alone = fit_predict(BASELINES[name], x[10:], y[10:, 1:2], x)
    np.testing.assert_allclose(found[:, 1:2], alone, atol=1e-10)
    if name == "ols":
        for site in range(3):
            rows = ~np.isnan(y[:, site])
            expected = LinearRegression().fit(x[rows], y[rows, site]).predict(x)
            np.testing.assert_allclose(found[:, site], expected, atol=1e-10)
    if name == "mean":
        np.testing.assert_allclose(found[0], np.nanmean(y, axis=0))


def test_basis_projects_new_images_as_it_does_its_own() -> None:
    rng = np.random.default_rng(2)
    x = rng.standard_normal((50, 300)).astype(np.float32)
    train = np.arange(40)
    basis = fit_basis(x, gram(x), train)
    by_hand = (x - basis.mean) @ basis.projection(x)
    np.testing.assert_allclose(by_hand, basis.coordinates, atol=1e-3)
    assert (basis.coordinates[train] ** 2).mean() == pytest.approx(1, rel=1e-3)


def test_interval_covers_like_that_of_independent_errors() -> None:
    """With one huge set of sites alike, the interval is that of a mean over images."""
    rng = np.random.default_rng(3)
    errors = np.repeat(rng.exponential(1, (400, 1)), 5, axis=1)
    low, high = bootstrap_interval(errors, seed=0)
    half = 1.96 * errors[:, 0].std() / np.sqrt(400)
    assert low == pytest.approx(errors.mean() - half, abs=0.02)
    assert high == pytest.approx(errors.mean() + half, abs=0.02)


def test_r2_and_r_follow_numpy() -> None:
    rng = np.random.default_rng(4)
    recorded = rng.standard_normal((40, 3))
    predicted = recorded + rng.standard_normal((40, 3))
    everything = [np.arange(40)]
    r = [np.corrcoef(predicted[:, s], recorded[:, s])[0, 1] for s in range(3)]
    assert median_pearson_r(predicted, recorded, everything) == pytest.approx(np.median(r))
    r2 = [1 - ((predicted - recorded)[:, s] ** 2).mean() / recorded[:, s].var() for s in range(3)]
    assert median_r2(predicted, recorded) == pytest.approx(np.median(r2))
    assert median_pearson_r(np.ones((40, 3)), recorded, everything) is None
