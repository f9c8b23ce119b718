"""The numbers of each region and site, from held-out predictions."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nrp_onnx.files import whole_file
from nrp_onnx.recordings import Recordings, site_reliability, trial_noise
from nrp_onnx.recordings.tables import write_table
from nrp_onnx.scoring.folds import Fits
from nrp_onnx.scoring.splits import Fold
from nrp_onnx.statistics import (
    bootstrap_means,
    compare_errors,
    explainable_removed,
    mean_absolute_error,
    median,
    median_pearson_r,
    median_r2,
    pearson_r_of_sites,
    percentile_interval,
)

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


NO_RELIABILITY = "no site has three stimuli with two repetitions"


def add_ceilings(
    regions: dict[str, dict[str, Any]],
    recordings: Recordings,
    fits: Fits,
    folds: Sequence[Fold],
    seed: int,
    path: Path,
) -> None:
    """Add reliabilities, and correlations relative to them, to the regions; write those of sites.

    A predictor that knows the true rates has a correlation of sqrt(reliability) with the recorded
    averages, so r / sqrt(reliability) is the correlation with the true rates. Sites whose
    reliability is not over 0 have none.

    Args:
        regions: of `score_regions`; each region gets ``reliability`` and ``reliability_reason``, each
            of its predictors ``pearson_r_normalised``.
        path: of the table of sites.
    """
    reliability = site_reliability(recordings, seed)
    ceiling = np.sqrt(np.where(reliability > 0, reliability, np.nan))
    tests = [fold.test for fold in folds]
    r = {
        name: pearson_r_of_sites(predicted, recordings.averages, tests)
        for name, predicted in fits.predictions.items()
    }
    for region, found in regions.items():
        sites = np.array(recordings.regions) == region
        found["reliability"] = median(reliability[sites])
        found["reliability_reason"] = NO_RELIABILITY if found["reliability"] is None else None
        for name, numbers in found["predictors"].items():
            numbers["pearson_r_normalised"] = median(r[name][sites] / ceiling[sites])
    columns = {
        "reliability": reliability,
        "r_nrp": r["nrp"],
        "r_nrp_normalised": r["nrp"] / ceiling,
    }
    texts = {name: [_text(value) for value in values] for name, values in columns.items()}
    with whole_file(path) as part:
        write_table(part, {"site_id": recordings.site_ids, "region": recordings.regions, **texts})


def _text(value: float) -> str:
    return "" if np.isnan(value) else f"{value:.6g}"
