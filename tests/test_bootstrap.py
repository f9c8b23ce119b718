"""The bootstrap against draws one by one, and against intervals that are known."""

import numpy as np
import pytest

from nrp_onnx.bootstrap import (
    bootstrap_means,
    bootstrap_medians,
    nested_levels,
    percentile_interval,
)

ANIMALS = ("a", "a", "a", "a", "b", "b", "b", "b", "b")
SESSIONS = ("1", "1", "2", "2", "1", "1", "1", "2", "3")


def test_levels_are_nested_and_hold_something_to_draw() -> None:
    labels = {"animal": ANIMALS, "session": SESSIONS, "array": ("x",) * 9}
    everywhere = range(9)
    found = nested_levels(labels, everywhere)
    assert list(found) == ["animal", "session"]
    assert len(set(found["animal"])) == 2
    assert len(set(found["session"])) == 5, "session 1 of a is not session 1 of b"
    # One animal is no level, one session an animal tells nothing that animals do not.
    assert list(nested_levels(labels, range(4))) == ["session"]
    assert list(nested_levels(labels, [0, 1, 4, 5])) == ["animal"]
    assert nested_levels({"animal": ("a",) * 9}, everywhere) == {}
    assert nested_levels({"animal": ("a", "") + ("b",) * 7}, everywhere) == {}
    assert nested_levels({}, everywhere) == {}


def test_nested_draws_have_the_moments_of_draws_one_by_one() -> None:
    """Animals, in each drawn one sessions, in each drawn one sites, by loops over Python's lists."""
    rng = np.random.default_rng(0)
    values = rng.normal(0, 1, 9) + np.array([3.0 if name == "a" else 0 for name in ANIMALS])
    tree: dict[str, dict[str, list[float]]] = {}
    for animal, session, value in zip(ANIMALS, SESSIONS, values, strict=True):
        tree.setdefault(animal, {}).setdefault(session, []).append(value)
    one_by_one = []
    for _ in range(20_000):
        drawn: list[float] = []
        for animal in rng.choice(sorted(tree), len(tree)):
            sessions = tree[animal]
            for session in rng.choice(sorted(sessions), len(sessions)):
                drawn += rng.choice(sessions[session], len(sessions[session])).tolist()
        one_by_one.append(np.mean(drawn))
    levels = tuple(nested_levels({"animal": ANIMALS, "session": SESSIONS}, range(9)).values())
    # One image alone is the same in every resample.
    found = bootstrap_means(values[None], seed=3, n_resamples=20_000, levels=levels)
    assert found.mean() == pytest.approx(np.mean(one_by_one), abs=0.04)
    assert found.std() == pytest.approx(np.std(one_by_one), rel=0.03)
    quantiles = [0.025, 0.25, 0.5, 0.75, 0.975]
    np.testing.assert_allclose(
        np.quantile(found, quantiles), np.quantile(one_by_one, quantiles), atol=0.12
    )
    flat = bootstrap_means(values[None], seed=3, n_resamples=20_000)
    assert found.std() > 1.5 * flat.std()


def test_regions_of_the_same_animals_draw_the_same_animals() -> None:
    """Sites of an animal are alike, so only the draw of animals moves the mean of a region."""
    one, two = np.array([0.0, 0, 1, 1]), np.array([0.0, 1, 1, 1, 1, 1])
    of_one = (("\na",) * 2 + ("\nb",) * 2,)
    of_two = (("\na",) + ("\nb",) * 5,)
    means = bootstrap_means(one[None], seed=0, levels=of_one)
    others = bootstrap_means(two[None], seed=0, levels=of_two)
    assert set(means) == {0.0, 0.5, 1.0}
    np.testing.assert_array_equal(means == 0, others == 0)
    np.testing.assert_array_equal(means == 1, others == 1)
    strangers = (("\nc",) * 2 + ("\nd",) * 2,)
    assert (bootstrap_means(one[None], seed=0, levels=strangers) != means).any()


def test_medians_are_those_of_drawn_sites() -> None:
    rng = np.random.default_rng(1)
    values = np.append(rng.standard_normal(6), [np.nan, np.inf])
    counts = np.random.default_rng(5).multinomial(8, np.full(8, 1 / 8), 300)
    expected = []
    for row in counts:
        drawn = np.repeat(values, row)
        drawn = drawn[np.isfinite(drawn)]
        expected.append(np.median(drawn) if len(drawn) else np.nan)
    np.testing.assert_allclose(bootstrap_medians(values, seed=5, n_resamples=300), expected)
    assert np.isnan(bootstrap_medians(np.full(3, np.nan), seed=0, n_resamples=4)).all()


def test_a_resample_takes_one_of_the_seeds() -> None:
    """Seeds that err by 1, 2 and 6 everywhere: nothing but the seed moves the mean."""
    errors = np.array([1.0, 2.0, 6.0])[:, None, None] * np.ones((3, 10, 4))
    means = bootstrap_means(errors, seed=0, n_resamples=3000)
    values, counts = np.unique(means, return_counts=True)
    np.testing.assert_allclose(values, [1, 2, 6])
    np.testing.assert_allclose(counts / 3000, 1 / 3, atol=0.03)
    assert percentile_interval(means) == (1.0, 6.0)
    rng = np.random.default_rng(0)
    one = rng.exponential(1, (1, 30, 8))
    np.testing.assert_array_equal(bootstrap_means(one, 7), bootstrap_means(one[0], 7))
