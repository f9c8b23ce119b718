"""Intervals hold the true mean error about as often as they say; benchmarks/coverage.py has more designs."""

import numpy as np
import pytest

from nrp_onnx.bootstrap import bootstrap_means, nested_levels, percentile_interval

N_SITES, N_IMAGES, ROUNDS = 50, 200, 200


def _coverage(of_sessions: float, n_sessions: int, drawn: bool) -> float:
    """The share of rounds that hold a mean error of 0.8, with effects of sessions, sites and images."""
    session = np.arange(N_SITES) % n_sessions
    levels = tuple(
        nested_levels({"session": tuple(map(str, session.tolist()))}, range(N_SITES)).values()
    )
    held = 0
    for number in range(ROUNDS):
        rng = np.random.default_rng([1, number])
        sites = of_sessions * rng.standard_normal(n_sessions)[session]
        sites += 0.12 * rng.standard_normal(N_SITES)
        images = 0.1 * (rng.exponential(1, N_IMAGES) - 1)
        errors = 0.8 + images[:, None] + sites + 0.5 * rng.standard_normal((N_IMAGES, N_SITES))
        means = bootstrap_means(errors, number, 500, levels if drawn else ())
        low, high = percentile_interval(means)
        held += low <= 0.8 <= high
    return held / ROUNDS


@pytest.mark.slow
def test_an_interval_over_50_sites_and_200_images_covers() -> None:
    assert 0.90 <= _coverage(0.0, 10, drawn=False) <= 0.99


@pytest.mark.slow
def test_sessions_are_to_be_drawn() -> None:
    """Sites of one session are alike: drawn as if they were not, the interval is too narrow."""
    assert _coverage(0.15, 25, drawn=True) >= 0.90
    assert _coverage(0.15, 10, drawn=False) < 0.80
