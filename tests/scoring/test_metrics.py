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
