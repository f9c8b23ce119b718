"""Tests of sites, and corrections for many tests, against SciPy and by hand."""

import numpy as np
import pytest
from scipy import stats

from nrp_onnx.significance import bootstrap_p, holm, simultaneous_intervals, site_tests


def test_site_tests_are_those_of_scipy() -> None:
    rng = np.random.default_rng(0)
    errors, other = rng.standard_normal((60, 12)), rng.standard_normal((60, 12))
    errors[:, :3] *= 0.4
    errors[:, 3] *= 3
    missing = rng.random((60, 12)) < 0.1
    missing[2:, 4] = True
    errors[missing], other[missing] = np.nan, np.nan
    other[:, 5] = -errors[:, 5]
    found = site_tests(errors, other)
    usable = [place for place in range(12) if place not in (4, 5)]
    for place in usable:
        test = stats.ttest_rel(np.abs(errors[:, place]), np.abs(other[:, place]), nan_policy="omit")
        assert found.p[place] == pytest.approx(test.pvalue)
    assert np.isnan(found.p[4])
    assert found.p[5] == 1
    tested = [place for place in range(12) if place != 4]
    q = stats.false_discovery_control(found.p[tested])
    np.testing.assert_allclose(found.q[tested], q)
    assert found.counts.better == 3
    assert found.counts.worse == 1


def test_discoveries_are_rarely_false() -> None:
    """Of sites that do not differ, 5 % have p < 0.05, and in few populations any counts."""
    rng = np.random.default_rng(1)
    p, populations = [], 0
    for _ in range(200):
        found = site_tests(*rng.standard_normal((2, 100, 30)))
        p.append((found.p < 0.05).mean())
        populations += found.counts.better + found.counts.worse > 0
    assert np.mean(p) == pytest.approx(0.05, abs=0.01)
    assert populations / 200 == pytest.approx(0.05, abs=0.04)


def test_holm_by_hand() -> None:
    # Holm (1979): times 4, 3, 2, 1 from the least up, and never less than the one before.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9]) == pytest.approx([1.0, 1.0])
    assert holm([0.02]) == pytest.approx([0.02])


def test_p_of_a_bootstrap_is_that_of_a_normal_difference() -> None:
    rng = np.random.default_rng(2)
    for z in (0.0, 1.0, -2.0):
        p = bootstrap_p(z + rng.standard_normal(200_000))
        assert p == pytest.approx(2 * stats.norm.sf(abs(z)), rel=0.05)
    assert bootstrap_p(np.full(1999, 3.0)) == pytest.approx(2 / 2000)
    assert bootstrap_p(np.zeros(10)) == 1


def test_simultaneous_intervals_are_those_of_independent_normals() -> None:
    """Of k independent values, c is the normal quantile at (1 + 0.95^(1/k)) / 2 (Sidak)."""
    rng = np.random.default_rng(3)
    spread = np.array([1.0, 2.0, 0.1, 5.0])
    resampled = 7 + spread[:, None] * rng.standard_normal((4, 200_000))
    found = simultaneous_intervals([0.0, 1.0, 2.0, 3.0], resampled)
    c = stats.norm.ppf((1 + 0.95 ** (1 / 4)) / 2)
    for value, s, (low, high) in zip((0.0, 1.0, 2.0, 3.0), spread, found, strict=True):
        assert (low + high) / 2 == pytest.approx(value, abs=1e-9)
        assert (high - low) / 2 == pytest.approx(c * s, rel=0.02)
    # A value that never moves has an interval of no width, and does not widen the others.
    (single, still) = simultaneous_intervals([0.0, 1.0], np.stack([resampled[0], np.ones(200_000)]))
    assert still == (1.0, 1.0)
    assert single[1] == pytest.approx(stats.norm.ppf(0.975), rel=0.02)
