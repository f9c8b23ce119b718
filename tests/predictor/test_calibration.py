"""Calibration a site and mixtures, against scikit-learn and responses that no image explains."""

import numpy as np
import pytest
from sklearn.linear_model import LinearRegression, QuantileRegressor

from nrp_onnx.activations.layer_file import LoadedLayer
from nrp_onnx.predictor.baselines import fit_baselines
from nrp_onnx.predictor.calibration import Rates, SquareRoot, calibrate, fit_lines
from nrp_onnx.predictor.image_products import read_span
from nrp_onnx.predictor.nrp_predictor import mix


def _skewed(n: int, n_sites: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    drive = rng.standard_normal((n, n_sites))
    return drive, 0.3 + 0.6 * drive + rng.exponential(0.7, drive.shape)


def test_lines_have_the_least_absolute_deviations() -> None:
    """As the quantile regression of scikit-learn at the median."""
    drive, y = _skewed(150, 4)
    y[:20, 1] = drive[100:, 2] = np.nan
    line = fit_lines(drive, y)
    for site in range(4):
        there = ~(np.isnan(drive[:, site]) | np.isnan(y[:, site]))
        x, recorded = drive[there, site, None], y[there, site]
        best = QuantileRegressor(quantile=0.5, alpha=0, solver="highs").fit(x, recorded)
        least = np.abs(best.predict(x) - recorded).mean()
        found = np.abs(line.intercept[site] + line.slope[site] * x[:, 0] - recorded).mean()
        assert found == pytest.approx(least, rel=1e-3)


def test_a_predictor_that_errs_by_chance_is_not_turned_round() -> None:
    rng = np.random.default_rng(1)
    y = rng.exponential(1.0, (101, 1))
    line = fit_lines(-y + 0.1 * rng.standard_normal(y.shape), y)
    assert line.slope[0] == 0
    assert line.intercept[0] == pytest.approx(np.median(y))
    few = fit_lines(y[:10], 2 * y[:10])
    assert (few.slope[0], few.intercept[0]) == (1, 0)


def test_square_roots_are_turned_back() -> None:
    counts = np.random.default_rng(2).poisson(3, (50, 2)).astype(float)
    counts[0, 0] = np.nan
    root = SquareRoot.of(counts)
    assert root is not None
    scaled = root.forward(counts)
    assert np.nanstd(scaled, axis=0) == pytest.approx(1)
    np.testing.assert_allclose(root.back(scaled), counts)
    assert (root.back(np.full((1, 2), -99.0)) == 0).all()
    assert SquareRoot.of(counts - 1) is None


def test_each_site_takes_the_variant_with_the_least_held_out_error() -> None:
    rng = np.random.default_rng(3)
    y = rng.standard_normal((200, 2))
    noise = 0.1 * rng.standard_normal(y.shape)
    good_at_first = Rates(np.full((5, 2), 1.0), y + noise * (1, 20))
    good_at_second = Rates(np.full((5, 2), 2.0), y + noise * (20, 1))
    found = calibrate([good_at_first, good_at_second], y)
    assert found[0] == pytest.approx((1, 2), abs=0.1)


def test_what_no_image_explains_is_given_its_mean() -> None:
    rng = np.random.default_rng(4)
    y = rng.standard_normal((300, 6))
    null = Rates(rng.standard_normal((40, 6)), rng.standard_normal(y.shape))
    regions = [np.arange(3), np.arange(3, 6)]
    good = Rates(y[:40], y + 0.3 * rng.standard_normal(y.shape))
    mixture = mix((0.0, 0.5, 1.0), null, null, y, regions)
    np.testing.assert_allclose(mixture.rates.predicted, 0, atol=0.25)
    assert (mixture.share + mixture.path_share <= 0.1).all()
    mixture = mix((0.0, 0.5, 1.0), null, good, y, regions)
    np.testing.assert_allclose(mixture.path_share, 1)


@pytest.mark.parametrize("n_features", [8, 300])
def test_held_out_rates_of_least_squares_are_those_without_the_image(n_features: int) -> None:
    rng = np.random.default_rng(5)
    x = rng.standard_normal((90, n_features)).astype(np.float32)
    y = x[:, :3] + rng.standard_normal((90, 3))
    train, new = np.arange(80), np.arange(80, 90)
    found = fit_baselines([read_span(LoadedLayer(x))], y[train], train, new, False, True)
    for image in (0, 17):
        others = train[train != image]
        alone = LinearRegression().fit(x[others].astype(np.float64), y[others])
        expected = alone.predict(x[[image]].astype(np.float64))[0]
        np.testing.assert_allclose(found.held_out["ols"][image], expected, atol=0.02)
    assert np.isfinite(found.held_out["pls"]).all()
    mean = found.held_out["mean"][0]
    np.testing.assert_allclose(mean, y[train[1:]].mean(axis=0))
