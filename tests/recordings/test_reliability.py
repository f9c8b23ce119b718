"""Split-half reliability against pandas and SciPy, and against signals that are known."""

import numpy as np
import pandas as pd
import pytest
import scipy.stats
from sklearn.model_selection import ShuffleSplit

from nrp_onnx.recordings import Recordings, site_reliability, split_half_reliability
from tests.recordings.test_noise import recordings_of


def by_pandas(recordings: Recordings, seed: int, n_splits: int) -> np.ndarray:
    table = pd.DataFrame(recordings.responses.astype(float))
    table["stimulus"], table["repetition"] = (
        recordings.presentation_stimulus,
        recordings.repetition,
    )
    numbers = np.unique(recordings.repetition)
    rows = []
    splits = ShuffleSplit(n_splits, train_size=0.5, random_state=seed).split(numbers)
    for first, second in splits:
        a, b = (
            table[table["repetition"].isin(numbers[half])]
            .groupby("stimulus")
            .mean()
            .reindex(range(recordings.n_stimuli))
            for half in (first, second)
        )
        row = []
        for site in range(recordings.n_sites):
            both = pd.concat([a[site], b[site]], axis=1).dropna().to_numpy()
            r = scipy.stats.pearsonr(both[:, 0], both[:, 1])[0] if len(both) > 2 else np.nan
            row.append(2 * r / (1 + r))
        rows.append(row)
    return np.array(rows)


@pytest.mark.parametrize("n_repetitions", [2, 5])
def test_each_split_is_that_of_pandas(n_repetitions):
    rng = np.random.default_rng(n_repetitions)
    responses = rng.normal(7, 1, (50, 1, 40)) + rng.normal(size=(50, n_repetitions, 40))
    responses[rng.random(responses.shape) < 0.15] = np.nan
    recordings = recordings_of(responses)
    order = rng.permutation(len(recordings.repetition))
    recordings = Recordings(
        **{
            **{name: getattr(recordings, name) for name in recordings.__dataclass_fields__},
            "responses": recordings.responses[order],
            "presentation_stimulus": recordings.presentation_stimulus[order],
            "repetition": recordings.repetition[order] * 3 + 1,
        }
    )
    found = split_half_reliability(recordings, seed=1, n_splits=10)
    np.testing.assert_allclose(found, by_pandas(recordings, 1, 10), atol=1e-6)
    whole = recordings_of(rng.normal(7, 1, (50, 1, 40)) + rng.normal(size=(50, n_repetitions, 40)))
    np.testing.assert_allclose(
        site_reliability(whole, seed=2), by_pandas(whole, 2, 20).mean(axis=0), atol=1e-6
    )


@pytest.mark.parametrize("n_repetitions", [2, 3, 10])
def test_its_root_is_the_correlation_of_a_perfect_predictor(n_repetitions):
    rng = np.random.default_rng(3)
    signal = rng.normal(0, [0.6, 1, 3], (20_000, 1, 3))
    recordings = recordings_of(signal + rng.normal(size=(20_000, n_repetitions, 3)))
    reliability = site_reliability(recordings)
    # Three repetitions split 1 and 2, where Spearman-Brown takes equal halves.
    tolerance = 0.03 if n_repetitions == 3 else 0.015
    for site in range(3):
        r = np.corrcoef(recordings.averages[:, site], signal[:, 0, site])[0, 1]
        assert np.sqrt(reliability[site]) == pytest.approx(r, abs=tolerance)


@pytest.mark.filterwarnings("error")
def test_where_there_is_none():
    rng = np.random.default_rng(0)
    assert np.isnan(site_reliability(recordings_of(rng.normal(size=(9, 1, 2))))).all()
    responses = rng.normal(size=(9, 4, 3))
    responses[:, :, 1] = 0.1
    responses[2:, 1:, 2] = np.nan
    found = site_reliability(recordings_of(responses))
    assert np.isnan(found).tolist() == [False, True, True], "the last has two stimuli with halves"


def test_the_seed_decides_the_splits(simulated):
    once = site_reliability(simulated, seed=3)
    np.testing.assert_array_equal(once, site_reliability(simulated, seed=3))
    assert (once != site_reliability(simulated, seed=4)).any()
