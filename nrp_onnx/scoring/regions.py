"""The numbers of each region, from held-out predictions."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from nrp_onnx.recordings import Recordings, trial_noise
from nrp_onnx.scoring.fitting import Fits
from nrp_onnx.scoring.metrics import (
    bootstrap_means,
    mean_absolute_error,
    median_pearson_r,
    median_r2,
    percentile_interval,
)
from nrp_onnx.scoring.paired import compare_errors, explainable_removed
from nrp_onnx.scoring.splits import Fold

NO_NOISE_FLOOR = "no stimulus has two repetitions"


def score_regions(
    recordings: Recordings, fits: Fits, folds: list[Fold], seed: int
) -> dict[str, dict[str, Any]]:
    """For each region: its NRP-error with interval, the noise floor, and every predictor.

    Images that no fold holds out count nowhere.
    """
    rates = recordings.averages
    tests = [fold.test for fold in folds]
    held_out = np.sort(np.concatenate(tests))
    noise = (trial_noise(recordings, seed) / fits.scales)[held_out]
    result: dict[str, dict[str, Any]] = {}
    for region in recordings.region_names:
        sites = np.flatnonzero(np.array(recordings.regions) == region)
        floor = noise[:, sites]
        known = bool((~np.isnan(floor)).any())
        noise_floor = float(np.nanmean(floor)) if known else None
        recorded = rates[:, sites]
        errors = {
            name: ((fits.predictions[name][:, sites] - recorded) / fits.scales[:, sites])[held_out]
            for name in fits.predictions
        }
        mae = {name: mean_absolute_error(found) for name, found in errors.items()}
        means = {name: bootstrap_means(np.abs(found), seed) for name, found in errors.items()}
        predictors = {}
        for name in fits.predictions:
            predicted = fits.predictions[name][:, sites]
            predictors[name] = {
                "mae": mae[name],
                "mae_ci95": list(percentile_interval(means[name])),
                "r2": median_r2(predicted[held_out], recorded[held_out]),
                "pearson_r": median_pearson_r(predicted, recorded, tests),
                "explainable_removed": explainable_removed(mae[name], mae["mean"], noise_floor),
            }
        nrp = predictors["nrp"]
        result[region] = {
            "n_sites": len(sites),
            "nrp_error": {
                "value": nrp["mae"],
                "ci95": nrp["mae_ci95"],
                "by_seed": [
                    mean_absolute_error(
                        ((predicted[:, sites] - recorded) / fits.scales[:, sites])[held_out]
                    )
                    for predicted in fits.of_seeds
                ],
            },
            "noise_floor": noise_floor,
            "noise_floor_reason": None if known else NO_NOISE_FLOOR,
            "predictors": predictors,
            "comparisons": {
                name: compare_errors(errors["nrp"], errors[name], means["nrp"] - means[name])
                for name in fits.predictions
                if name != "nrp"
            },
        }
    return result


def notes_on_seeds(regions: Mapping[str, dict[str, Any]]) -> list[str]:
    """How far the NRP-error of each region hangs on the seed; nothing to say of a single one."""
    return [
        f"{name}: NRP-error {np.mean(errors):.4f} on average over {len(errors)} seeds, "
        f"standard deviation {np.std(errors, ddof=1):.4f}"
        for name, region in regions.items()
        if len(errors := region["nrp_error"]["by_seed"]) > 1
    ]
