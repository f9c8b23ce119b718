from pathlib import Path

import numpy as np
import pytest

from nrp_onnx.recordings import Recordings, trial_noise


def recordings_of(responses: np.ndarray) -> Recordings:
    """Recordings of an array (n_stimuli, n_repetitions, n_sites)."""
    n_stimuli, n_repetitions, n_sites = responses.shape
    return Recordings(
        name="noise",
        stimulus_ids=tuple(map(str, range(n_stimuli))),
        stimulus_paths=(Path("none"),) * n_stimuli,
        stimulus_labels={},
        site_ids=tuple(map(str, range(n_sites))),
        regions=("V4",) * n_sites,
        site_labels={},
        responses=responses.reshape(-1, n_sites).astype(np.float32),
        presentation_stimulus=np.repeat(np.arange(n_stimuli), n_repetitions),
        repetition=np.tile(np.arange(n_repetitions, dtype=np.int32), n_stimuli),
    )


@pytest.mark.parametrize("n", [2, 3, 5, 8])
def test_gaussian_noise(n):
    """E|e| of a Gaussian mean is sd sqrt(2 / (pi n)), for even and odd n, whatever the signal."""
    rng = np.random.default_rng(n)
    sd = np.array([0.5, 1.0, 3.0])
    signal = rng.normal(0, 10, (6000, 1, 3))
    noise = trial_noise(recordings_of(signal + sd * rng.normal(size=(6000, n, 3))), seed=1)
    assert noise.shape == (6000, 3)
    share = noise.mean(axis=0) / (sd * np.sqrt(2 / np.pi / n))
    np.testing.assert_allclose(share, 1, atol=0.04)
    assert share.mean() == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("rate", [0.3, 2.0, 8.0])
def test_poisson_noise_against_the_error_of_a_perfect_predictor(rate):
    rng = np.random.default_rng(5)
    rates = rng.gamma(4, rate / 4, (1500, 1, 4))
    recordings = recordings_of(rng.poisson(rates, (1500, 10, 4)).astype(float))
    perfect = np.abs(recordings.averages - rates[:, 0]).mean()
    assert trial_noise(recordings).mean() == pytest.approx(perfect, rel=0.05)


def test_missing_responses_count_less():
    """A site that lost 6 of 8 responses has twice the noise of one that has all."""
    rng = np.random.default_rng(9)
    responses = rng.normal(size=(2000, 8, 3))
    responses[:, 2:, 1] = np.nan
    responses[:, 1:, 2] = np.nan
    noise = trial_noise(recordings_of(responses))
    np.testing.assert_allclose(noise[:, 0].mean(), np.sqrt(2 / np.pi / 8), rtol=0.05)
    np.testing.assert_allclose(noise[:, 1].mean(), np.sqrt(2 / np.pi / 2), rtol=0.05)
    assert np.isnan(noise[:, 2]).all()


@pytest.mark.parametrize("n", [2, 5, 8])
def test_a_missing_response_changes_no_other_site(n):
    responses = np.random.default_rng(3).normal(size=(50, n, 3))
    whole = trial_noise(recordings_of(responses))
    responses[:, 0, 2] = np.nan
    np.testing.assert_allclose(
        trial_noise(recordings_of(responses))[:, :2], whole[:, :2], rtol=1e-6
    )


@pytest.mark.filterwarnings("error")
def test_a_single_presentation_has_no_noise_to_see():
    assert np.isnan(trial_noise(recordings_of(np.ones((3, 1, 2))))).all()


def test_responses_that_never_vary_have_none():
    assert (trial_noise(recordings_of(np.full((3, 4, 2), 7.25))) == 0).all()


def test_a_seed_gives_the_same_numbers(simulated):
    once = trial_noise(simulated, seed=3, n_splits=2)
    np.testing.assert_array_equal(once, trial_noise(simulated, seed=3, n_splits=2))
    assert (once != trial_noise(simulated, seed=4, n_splits=2)).any()


def test_simulated_recordings_against_their_truth(simulated):
    perfect = np.abs(simulated.averages - simulated.noise_free).mean()
    assert trial_noise(simulated).mean() == pytest.approx(perfect, rel=0.02)
