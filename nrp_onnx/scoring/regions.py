"""The numbers of each region and site, from held-out predictions."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nrp_onnx.files import whole_file
from nrp_onnx.recordings import Recordings, site_reliability, trial_noise
from nrp_onnx.recordings.tables import write_table
from nrp_onnx.scoring.folds import Fits
from nrp_onnx.scoring.result import NrpError, PredictorScore, RegionScore
from nrp_onnx.scoring.splits import Fold
from nrp_onnx.statistics import (
    Interval,
    bootstrap_means,
    compare_errors,
    explainable_removed,
    mean_absolute_error,
    median,
    median_r2,
    pearson_r_of_sites,
    percentile_interval,
)

NO_NOISE_FLOOR = "no stimulus has two repetitions"
NO_RELIABILITY = "no site has three stimuli with two repetitions"


@dataclass(frozen=True, eq=False)
class Measured:
    """The numbers of a score.

    Attributes:
        regions: by name, without Brain-Score's metric.
        ci95: the 95 % interval of the mean over regions of the NRP-error.
        reliability: of the averages of each site, float64 (n_sites,).
        pearson_r: of the NRP head at each site, float64 (n_sites,).
    """

    regions: dict[str, RegionScore]
    ci95: Interval
    reliability: np.ndarray
    pearson_r: np.ndarray


def measure_regions(recordings: Recordings, fits: Fits, folds: list[Fold], seed: int) -> Measured:
    """Each region's NRP-error with interval, noise floor, reliability, and every predictor.

    Images that no fold holds out count nowhere. A predictor that knows the true rates has a
    correlation of sqrt(reliability) with the recorded averages, so r / sqrt(reliability) is the
    correlation with the true rates. Sites whose reliability is not over 0 have none.
    """
    rates, predictions = recordings.averages, fits.predictions
    tests = [fold.test for fold in folds]
    held_out = np.sort(np.concatenate(tests))
    noise = (trial_noise(recordings, seed) / fits.scales)[held_out]
    counts = recordings.repetition_counts()[held_out]
    reliability = site_reliability(recordings, seed)
    ceiling = _ceiling(reliability)
    r = {name: pearson_r_of_sites(found, rates, tests) for name, found in predictions.items()}
    regions, resampled = {}, []
    for region in recordings.region_names:
        sites = np.flatnonzero(np.array(recordings.regions) == region)
        recorded, scales = rates[:, sites], fits.scales[:, sites]
        known = ~np.isnan(noise[:, sites])
        floor = float(np.nanmean(noise[:, sites])) if known.any() else None
        errors = {
            name: ((found[:, sites] - recorded) / scales)[held_out]
            for name, found in predictions.items()
        }
        mae = {name: mean_absolute_error(found) for name, found in errors.items()}
        means = {name: bootstrap_means(np.abs(found), seed) for name, found in errors.items()}
        resampled.append(means["nrp"])
        median_reliability = median(reliability[sites])
        regions[region] = RegionScore(
            n_sites=len(sites),
            nrp_error=NrpError(
                value=mae["nrp"],
                ci95=percentile_interval(means["nrp"]),
                by_seed=[
                    mean_absolute_error(((found[:, sites] - recorded) / scales)[held_out])
                    for found in fits.predictions_by_seed
                ],
            ),
            noise_floor=floor,
            noise_floor_reason=NO_NOISE_FLOOR if floor is None else None,
            noise_floor_share=_share_repeated(counts[:, sites]),
            predictors={
                name: PredictorScore(
                    mae=mae[name],
                    mae_ci95=percentile_interval(means[name]),
                    r2=median_r2(found[held_out][:, sites], recorded[held_out]),
                    pearson_r=median(r[name][sites]),
                    explainable_removed=explainable_removed(mae[name], mae["mean"], floor),
                    pearson_r_normalised=median(r[name][sites] / ceiling[sites]),
                )
                for name, found in predictions.items()
            },
            comparisons={
                name: compare_errors(errors["nrp"], errors[name], means["nrp"] - means[name])
                for name in predictions
                if name != "nrp"
            },
            reliability=median_reliability,
            reliability_reason=NO_RELIABILITY if median_reliability is None else None,
        )
    ci95 = percentile_interval(np.mean(resampled, axis=0))
    return Measured(regions, ci95, reliability, r["nrp"])


def write_sites(path: Path, recordings: Recordings, measured: Measured) -> None:
    """Write sites.csv: reliability and held-out correlation of every site; empty where there is none."""
    columns = {
        "reliability": measured.reliability,
        "r_nrp": measured.pearson_r,
        "r_nrp_normalised": measured.pearson_r / _ceiling(measured.reliability),
    }
    texts = {name: [_text(value) for value in values] for name, values in columns.items()}
    with whole_file(path) as part:
        write_table(part, {"site_id": recordings.site_ids, "region": recordings.regions, **texts})


def notes_on_seeds(regions: Mapping[str, RegionScore]) -> list[str]:
    """How far the NRP-error of each region depends on the seed; nothing to say of a single one."""
    return [
        f"{name}: NRP-error {np.mean(errors):.4f} on average over {len(errors)} seeds, "
        f"standard deviation {np.std(errors, ddof=1):.4f}"
        for name, region in regions.items()
        if len(errors := region.nrp_error.by_seed) > 1
    ]


def _share_repeated(counts: np.ndarray) -> float | None:
    """Of the averages, the share that has two responses or more: its noise is not carried over."""
    n_recorded = int((counts >= 1).sum())
    return int((counts >= 2).sum()) / n_recorded if n_recorded else None


def _ceiling(reliability: np.ndarray) -> np.ndarray:
    """The highest correlation that a predictor can have with the recorded averages of each site."""
    ceiling: np.ndarray = np.sqrt(np.where(reliability > 0, reliability, np.nan))
    return ceiling


def _text(value: float) -> str:
    return "" if np.isnan(value) else f"{value:.6g}"
