"""What a predictor that gives the true rates reaches, where repetitions differ."""

from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from nrp_onnx.recordings import Recordings
from nrp_onnx.scoring.folds import Fits
from nrp_onnx.scoring.regions import NO_NOISE_FLOOR, measure_regions
from nrp_onnx.scoring.splits import Fold
from tests.recordings.test_unequal_repetitions import recorded


def measured(recordings: Recordings, rates: np.ndarray) -> Any:
    """The region's numbers with the true rates as the predictions of ``nrp``."""
    mean = np.broadcast_to(np.nanmean(recordings.averages, axis=0), rates.shape)
    scales = np.broadcast_to(np.nanstd(recordings.averages, axis=0), rates.shape)
    fits = cast(
        Fits,
        SimpleNamespace(
            predictions={"mean": mean, "nrp": rates},
            predictions_by_seed=[rates],
            scales=scales,
            headline="nrp",
            fields=None,
            best=[],
        ),
    )
    places = np.random.default_rng(0).permutation(len(rates))
    folds = [
        Fold(test, np.setdiff1d(places, test), np.array([], int))
        for test in np.array_split(places, 5)
    ]
    return measure_regions(recordings, fits, folds, seed=0).regions["V4"]


@pytest.mark.parametrize("noise", ["gaussian", "poisson"])
def test_the_true_rates_reach_the_floor_and_the_ceiling(noise):
    rng = np.random.default_rng(6)
    rates = rng.gamma(3, 2, (800, 30)) + 1
    shape = (800, 10, 30)
    trials = (
        rates[:, None] + 2 * rng.normal(size=shape)
        if noise == "gaussian"
        else rng.poisson(rates[:, None], shape).astype(float)
    )
    counts = np.where(np.arange(800) % 2, 1, 10)[:, None] * np.ones((800, 30), int)
    region = measured(recorded(trials, counts), rates)
    assert region.noise_floor == pytest.approx(region.nrp_error.value, rel=0.03)
    assert region.noise_floor_share == 0.5
    assert region.predictors["nrp"].explainable_removed == pytest.approx(1, abs=0.03)
    assert region.predictors["nrp"].pearson_r_normalised == pytest.approx(1, abs=0.02)


def test_without_repetitions_there_is_no_floor_and_it_rests_on_nothing():
    rates = np.random.default_rng(1).normal(size=(40, 3))
    region = measured(recorded(rates[:, None], np.ones((40, 3), int)), rates)
    assert region.noise_floor is None
    assert region.noise_floor_reason == NO_NOISE_FLOOR
    assert region.noise_floor_share == 0
    assert region.reliability is None
