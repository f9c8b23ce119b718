"""Noise floor and reliability where repetitions differ, against rates and noise that are known."""

import numpy as np
import pytest
import scipy.stats

from nrp_onnx.recordings import (
    Recordings,
    notes_on_noise,
    site_reliability,
    split_half_reliability,
    trial_noise,
    trial_variance,
)
from tests.recordings.test_noise import recordings_of

N_STIMULI, N_SITES, MOST = 600, 60, 10


def repetitions(kind: str, rng: np.random.Generator) -> np.ndarray:
    """How often each site was recorded for each stimulus, (N_STIMULI, N_SITES)."""
    if kind == "half once, half ten times":
        counts = np.where(np.arange(N_STIMULI) % 2, 1, 10)[:, None]
    elif kind == "1 to 10":
        counts = rng.integers(1, MOST + 1, (N_STIMULI, 1))
    elif kind == "0 to 10 by site":
        return rng.integers(0, MOST + 1, (N_STIMULI, N_SITES))
    else:
        counts = np.where(np.arange(N_STIMULI) % 5, 1, 2)[:, None]
    return np.broadcast_to(counts, (N_STIMULI, N_SITES))


def recorded(trials: np.ndarray, counts: np.ndarray) -> Recordings:
    """Of trials (n_stimuli, n_repetitions, n_sites), the first ``counts`` of each."""
    late = np.arange(trials.shape[1])[None, :, None] >= counts[:, None]
    return recordings_of(np.where(late, np.nan, trials))


def true_reliability(rates: np.ndarray, of_trials: np.ndarray, counts: np.ndarray) -> float:
    """Mean over sites of the share of variance, from the rates and the noise variance of a trial."""
    there = np.where(counts > 0, 1, np.nan)
    signal = np.nanvar(rates * there, axis=0)
    noise = np.nanmean(there * of_trials / np.maximum(counts, 1), axis=0)
    return float((signal / (signal + noise)).mean())


KINDS = ("half once, half ten times", "1 to 10", "0 to 10 by site", "a fifth twice, else once")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("noise", ["gaussian", "1 to 3", "2 to 5", "1 to 20", "bursts"])
def test_floor_and_reliability_are_those_of_the_true_rates(kind, noise):
    rng = np.random.default_rng(7)
    counts = repetitions(kind, rng)
    shape = (N_STIMULI, MOST, N_SITES)
    if noise == "gaussian":
        sd = rng.uniform(0.5, 2, N_SITES)
        rates, of_trials = rng.normal(size=(N_STIMULI, N_SITES)), sd**2
        trials = rates[:, None] + sd * rng.normal(size=shape)
    elif noise == "bursts":
        rates = 1 + rng.gamma(2, 2, (N_STIMULI, N_SITES))
        of_trials = 1.5 * rates
        trials = rng.poisson(rng.gamma(rates[:, None] / 0.5, 0.5, shape)).astype(float)
    else:
        low, high = map(float, noise.split(" to "))
        rates = rng.uniform(low, high, (N_STIMULI, N_SITES))
        of_trials = rates
        trials = rng.poisson(rates[:, None], shape).astype(float)
    recordings = recorded(trials, counts)
    found = trial_noise(recordings)
    np.testing.assert_array_equal(np.isnan(found), counts == 0)
    perfect = np.nanmean(np.abs(recordings.averages - rates))
    assert np.nanmean(found) == pytest.approx(perfect, rel=0.05)
    once = counts == 1
    perfect_once = np.abs(recordings.averages - rates)[once].mean()
    assert found[once].mean() == pytest.approx(perfect_once, rel=0.05)
    truth = true_reliability(rates, of_trials, counts)
    # Where little of the variance is signal, 5 % of it is less than what 600 images tell.
    margin = max(0.05 * truth, 0.015)
    assert site_reliability(recordings).mean() == pytest.approx(truth, abs=margin)


def test_the_model_of_the_noise_is_found():
    rng = np.random.default_rng(2)
    rates = rng.uniform(2, 12, (N_STIMULI, 2))
    trials = np.stack(
        [
            rng.poisson(rates[:, None, 0], (N_STIMULI, MOST)) * 20.0,  # spikes/s in 50 ms
            rates[:, None, 1] + 0.1 * rng.normal(size=(N_STIMULI, MOST)),
        ],
        axis=2,
    )
    counts = repetitions(KINDS[0], rng)[:, :2]
    variance = trial_variance(recorded(trials, counts))
    assert variance.poisson_like.tolist() == [True, False]
    assert variance.fano[0] == pytest.approx(20, rel=0.05)
    assert variance.rate_variance[0] == pytest.approx(rates[:, 0].var() * 400, rel=0.2)
    once = counts[:, 1] == 1
    np.testing.assert_allclose(variance.of_averages[once, 1], 0.01, rtol=0.05)
    repeated = np.var(trials[0, :, 1], ddof=1) / MOST
    assert variance.of_averages[0, 1] == pytest.approx(repeated, rel=1e-4)


@pytest.mark.parametrize("n", [2, 3])
@pytest.mark.parametrize("mean", [0.1, 0.2, 0.4, 0.8])
def test_sparse_counts(mean, n):
    """Halves of few spikes are mostly both 0, though the average is off the rate."""
    rng = np.random.default_rng(11)
    rates = rng.gamma(2, mean / 2, (N_STIMULI, N_SITES))
    recordings = recordings_of(rng.poisson(rates[:, None], (N_STIMULI, n, N_SITES)).astype(float))
    perfect = np.abs(recordings.averages - rates).mean()
    assert trial_noise(recordings).mean() == pytest.approx(perfect, rel=0.05)
    (note,) = notes_on_noise(recordings)
    assert note.startswith("V4: 100 % of the averages")
    assert "fewer than 10 spikes" in note


def test_poisson_counts_of_one_rate_against_scipy():
    """Of rates that are all the same, the formula is that of SciPy's Poisson distribution."""
    rng = np.random.default_rng(1)
    recordings = recordings_of(rng.poisson(0.4, (20_000, 2, 1)).astype(float))
    expected = scipy.stats.poisson(0.8).expect(lambda k: abs(k / 2 - 0.4))
    assert trial_noise(recordings).mean() == pytest.approx(expected, rel=0.04)


def test_equal_repetitions_are_split_in_halves():
    rng = np.random.default_rng(4)
    signal = rng.normal(size=(N_STIMULI, 1, 40))
    recordings = recordings_of(signal + rng.normal(size=(N_STIMULI, 4, 40)))
    halves = split_half_reliability(recordings, seed=5).mean(axis=0)
    np.testing.assert_allclose(site_reliability(recordings, seed=5), halves, rtol=1e-12)
    # The variance components, which serve where repetitions differ, agree at equal ones.
    responses = recordings.responses.reshape(N_STIMULI, 4, 40)
    within = responses.var(axis=1, ddof=1).mean(axis=0) / 4
    components = 1 - within / responses.mean(axis=1).var(axis=0, ddof=1)
    np.testing.assert_allclose(halves, components, rtol=0.02)
    assert halves.mean() == pytest.approx(components.mean(), rel=0.01)
    assert notes_on_noise(recordings) == []


def test_reliability_of_variance_components_against_mean_squares():
    """Two responses to each stimulus but one: 1 - MS_within / MS_between, nearly, as of ICC(1, k)."""
    rng = np.random.default_rng(8)
    responses = rng.normal(size=(2000, 1, 5)) + rng.normal(size=(2000, 2, 5))
    between = 2 * responses.mean(axis=1).var(axis=0, ddof=1)
    within = responses.var(axis=1, ddof=1).mean(axis=0)
    responses[0, 1] = np.nan
    found = site_reliability(recordings_of(responses))
    np.testing.assert_allclose(found, 1 - within / between, atol=0.003)


def test_a_note_says_what_the_floor_rests_on():
    rng = np.random.default_rng(3)
    trials = rng.normal(size=(8, 10, 3))
    counts = np.array([10, 10, 10, 10, 1, 1, 1, 1])[:, None] * np.ones((8, 3), int)
    (note,) = notes_on_noise(recorded(trials, counts))
    assert note.startswith("V4: noise floor and reliability rest on the 50 %")
    assert notes_on_noise(recorded(trials, np.ones((8, 3), int))) == [], "there is no floor"


@pytest.mark.filterwarnings("error")
def test_sites_without_a_repeated_stimulus_and_sites_of_one_value():
    responses = np.random.default_rng(0).normal(size=(6, 3, 4))
    responses[:, 1:, 0] = np.nan
    responses[:, :, 1] = 0
    responses[:, :, 2] = 7.3
    responses[2:, 1:, :] = np.nan
    recordings = recordings_of(responses)
    noise = trial_noise(recordings)
    assert np.isnan(noise[:, 0]).all()
    assert (noise[:, 1:3] == 0).all()
    assert (noise[:, 3] > 0).all()
    assert np.isnan(site_reliability(recordings)).all(), "two stimuli are repeated"
