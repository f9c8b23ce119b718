"""The numbers of each region, from held-out predictions."""

from typing import Any

import numpy as np

from nrp_onnx.recordings import Recordings, trial_noise
from nrp_onnx.scoring.fitting import PREDICTORS, Fits
from nrp_onnx.scoring.metrics import (
    bootstrap_interval,
    mean_absolute_error,
    median_pearson_r,
    median_r2,
)
from nrp_onnx.scoring.splits import Fold

NO_NOISE_FLOOR = "no stimulus has two repetitions"


def score_regions(
    recordings: Recordings, fits: Fits, folds: list[Fold], seed: int
) -> dict[str, dict[str, Any]]:
    """For each region: its NRP-error with interval, the noise floor, and every predictor."""
    rates = recordings.averages
    noise = trial_noise(recordings, seed) / fits.scales
    tests = [fold.test for fold in folds]
    result: dict[str, dict[str, Any]] = {}
    for region in recordings.region_names:
        sites = np.flatnonzero(np.array(recordings.regions) == region)
        predictors = {}
        for name in PREDICTORS:
            predicted, recorded = fits.predictions[name][:, sites], rates[:, sites]
            errors = (predicted - recorded) / fits.scales[:, sites]
            predictors[name] = {
                "mae": mean_absolute_error(errors),
                "mae_ci95": list(bootstrap_interval(errors, seed)),
                "r2": median_r2(predicted, recorded),
                "pearson_r": median_pearson_r(predicted, recorded, tests),
            }
        floor = noise[:, sites]
        known = bool((~np.isnan(floor)).any())
        nrp = predictors["nrp"]
        result[region] = {
            "n_sites": len(sites),
            "nrp_error": {"value": nrp["mae"], "ci95": nrp["mae_ci95"]},
            "noise_floor": float(np.nanmean(floor)) if known else None,
            "noise_floor_reason": None if known else NO_NOISE_FLOOR,
            "predictors": predictors,
        }
    return result
