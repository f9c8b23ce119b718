"""The metrics against NumPy."""

import numpy as np
import pytest

from nrp_onnx.statistics import bootstrap_means, median_pearson_r, median_r2, percentile_interval


def test_interval_covers_like_that_of_independent_errors() -> None:
    """With one huge set of sites alike, the interval is that of a mean over images."""
    rng = np.random.default_rng(3)
    errors = np.repeat(rng.exponential(1, (400, 1)), 5, axis=1)
    low, high = percentile_interval(bootstrap_means(errors, seed=0))
    half = 1.96 * errors[:, 0].std() / np.sqrt(400)
    assert low == pytest.approx(errors.mean() - half, abs=0.02)
    assert high == pytest.approx(errors.mean() + half, abs=0.02)


def test_a_resample_without_a_recorded_value_counts_nowhere() -> None:
    """One of four images is recorded: about a third of the resamples hold no value at all."""
    errors = np.full((4, 2), np.nan)
    errors[1] = 3.0
    means = bootstrap_means(errors, seed=0)
    assert 0.2 < np.isnan(means).mean() < 0.45  # (3 / 4) ** 4 = 0.32
    assert set(means[~np.isnan(means)]) == {3.0}
    assert percentile_interval(means) == (3.0, 3.0)


def test_missing_values_leave_the_means_of_resamples_as_numpy_has_them() -> None:
    rng = np.random.default_rng(5)
    errors = rng.exponential(1, (6, 3))
    complete = bootstrap_means(errors, seed=1, n_resamples=50)
    again = np.random.default_rng(1)
    images = again.multinomial(6, np.full(6, 1 / 6), 50)
    sites = again.multinomial(3, np.full(3, 1 / 3), 50)
    for known in (np.ones((6, 3), bool), rng.random((6, 3)) < 0.7):
        weights = images[:, :, None] * sites[:, None, :] * known
        expected = (weights * errors).sum(axis=(1, 2)) / weights.sum(axis=(1, 2))
        found = bootstrap_means(np.where(known, errors, np.nan), seed=1, n_resamples=50)
        np.testing.assert_allclose(found, expected)
    assert not np.isnan(complete).any()


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
