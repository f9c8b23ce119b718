"""The numbers of each region, from held-out predictions."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np

from nrp_onnx.bootstrap import (
    FEW_GROUPS,
    FEW_SITES,
    LEVELS,
    N_RESAMPLES,
    Interval,
    Levels,
    bootstrap_drops,
    bootstrap_means,
    bootstrap_medians,
    nested_levels,
    percentile_interval,
)
from nrp_onnx.recordings import Recordings, site_reliability, trial_noise
from nrp_onnx.scoring.folds import Fits
from nrp_onnx.scoring.result import NrpError, OodScore, PredictorScore, RegionScore
from nrp_onnx.scoring.sites import ceiling_of, site_columns
from nrp_onnx.scoring.splits import Fold
from nrp_onnx.significance import site_tests
from nrp_onnx.statistics import (
    PairedDifference,
    compare_errors,
    explainable_removed,
    mean_absolute_error,
    mean_squared_error,
    median,
    median_r2,
    noise_corrected_r2,
    pearson_r_of_sites,
)

NO_NOISE_FLOOR = "no stimulus has two repetitions"
NO_RELIABILITY = "no site has three stimuli with two repetitions"


@dataclass(frozen=True, eq=False)
class Measured:
    """The numbers of a score.

    Attributes:
        regions: by name, without Brain-Score's metric.
        ci95: the 95 % interval of the mean over regions of the NRP-error.
        sites: the columns of sites.csv, float64 (n_sites,) each.
    """

    regions: dict[str, RegionScore]
    ci95: Interval
    sites: dict[str, np.ndarray]


def measure_regions(recordings: Recordings, fits: Fits, folds: list[Fold], seed: int) -> Measured:
    """Each region's NRP-error with interval, noise floor, reliability, and every predictor.

    Images that no fold holds out count nowhere, and those of a fixed split that are out of distribution
    in ``ood`` alone. A predictor that knows the true rates has a
    correlation of sqrt(reliability) with the recorded averages, so r / sqrt(reliability) is the
    correlation with the true rates. Sites whose reliability is not over 0 have none.
    """
    rates, predictions, headline = recordings.averages, fits.predictions, fits.headline
    tests = [fold.test for fold in folds]
    held_out = np.sort(np.concatenate(tests))
    noise = (trial_noise(recordings, seed) / fits.scales)[held_out]
    counts = recordings.repetition_counts()[held_out]
    reliability = site_reliability(_of_test(recordings, folds), seed)
    r = {name: pearson_r_of_sites(found, rates, tests) for name, found in predictions.items()}
    regions, resampled = {}, []
    for region in recordings.region_names:
        sites = np.flatnonzero(np.array(recordings.regions) == region)
        known = ~np.isnan(noise[:, sites])
        floor = float(np.nanmean(noise[:, sites])) if known.any() else None
        drawn = _Drawn.of(recordings, fits, held_out, sites, seed)
        resampled.append(drawn.means[headline])
        repeats = median(reliability[sites])
        regions[region] = RegionScore(
            n_sites=len(sites),
            nrp_error=NrpError(
                value=drawn.mae[headline],
                ci95=percentile_interval(drawn.means[headline]),
                by_seed=drawn.by_seed,
            ),
            noise_floor=floor,
            noise_floor_reason=NO_NOISE_FLOOR if floor is None else None,
            noise_floor_share=_share_repeated(counts[:, sites]),
            predictors={
                name: PredictorScore(
                    mae=drawn.mae[name],
                    mae_ci95=percentile_interval(drawn.means[name]),
                    r2=median_r2(found[held_out][:, sites], rates[held_out][:, sites]),
                    pearson_r=median(r[name][sites]),
                    explainable_removed=explainable_removed(
                        drawn.mae[name], drawn.mae["mean"], floor
                    ),
                    pearson_r_normalised=median((r[name] / ceiling_of(reliability))[sites]),
                    mse=mean_squared_error(drawn.errors[name]()),
                    mse_ci95=percentile_interval(drawn.squares[name]),
                    r2_normalised=median(
                        corrected := noise_corrected_r2(r[name], reliability)[sites]
                    ),
                    r2_normalised_ci95=_interval_of_median(corrected, seed, drawn.levels),
                )
                for name, found in predictions.items()
            },
            comparisons={
                name: drawn.compare(headline, name) for name in predictions if name != headline
            },
            shares=_shares(fits, region),
            ood=_out_of_distribution(recordings, fits, folds[0], drawn, sites, seed),
            reliability=repeats,
            reliability_reason=NO_RELIABILITY if repeats is None else None,
        )
    return Measured(
        regions,
        percentile_interval(np.mean(resampled, axis=0)),
        site_columns(recordings.regions, fits, rates, held_out, r, reliability, noise),
    )


@dataclass(frozen=True, eq=False)
class _Drawn:
    """Errors in a region, and their resamples.

    Attributes:
        errors: gives those of each predictor, predicted - recorded, float64 (n_images, n_sites) in
            units of the score; of many sites they are not all held at once.
        by_seed: mean absolute error of the headline predictor by each seed.
        mae: of each predictor.
        means, squares: mean absolute and mean squared error of each predictor in each resample.
        levels: the groups that sites are drawn in.
    """

    errors: dict[str, Callable[[], np.ndarray]]
    by_seed: list[float]
    mae: dict[str, float]
    means: dict[str, np.ndarray]
    squares: dict[str, np.ndarray]
    levels: Levels

    @classmethod
    def of(
        cls,
        recordings: Recordings,
        fits: Fits,
        held_out: np.ndarray,
        sites: np.ndarray,
        seed: int,
    ) -> "_Drawn":
        recorded = recordings.averages[held_out][:, sites]
        scales = fits.scales[held_out][:, sites]
        levels = tuple(nested_levels(recordings.site_labels, sites).values())

        def errors_of(found: np.ndarray) -> np.ndarray:
            errors: np.ndarray = (found[held_out][:, sites] - recorded) / scales
            return errors

        mae, means, squares = {}, {}, {}
        for name, found in fits.predictions.items():
            errors = errors_of(found)
            mae[name] = mean_absolute_error(errors)
            if name == fits.headline and len(fits.predictions_by_seed) > 1:
                errors = np.stack([errors_of(one) for one in fits.predictions_by_seed])
            means[name] = bootstrap_means(np.abs(errors), seed, levels=levels)
            squares[name] = bootstrap_means(errors**2, seed, levels=levels)
        by_seed = [mean_absolute_error(errors_of(one)) for one in fits.predictions_by_seed]
        return cls(
            {name: partial(errors_of, found) for name, found in fits.predictions.items()},
            by_seed,
            mae,
            means,
            squares,
            levels,
        )

    def compare(self, name: str, other: str) -> PairedDifference:
        """One predictor less another."""
        own, others = self.errors[name](), self.errors[other]()
        return compare_errors(
            own,
            others,
            self.means[name] - self.means[other],
            self.squares[name] - self.squares[other],
            site_tests(own, others).counts,
        )


def _of_test(recordings: Recordings, folds: list[Fold]) -> Recordings:
    """The recordings of the images that a fixed split tests on; all of them without one."""
    if not folds[0].is_fixed:
        return recordings
    test = {recordings.stimulus_ids[place] for place in folds[0].test}
    return recordings.without_stimuli({x for x in recordings.stimulus_ids if x not in test})


def _out_of_distribution(
    recordings: Recordings, fits: Fits, fold: Fold, drawn: _Drawn, sites: np.ndarray, seed: int
) -> dict[str, OodScore] | None:
    """Each predictor on the images of another distribution; None where there are none."""
    recorded = recordings.averages[fold.ood][:, sites]
    if np.isnan(recorded).all():
        return None
    scales, found = fits.scales[fold.ood][:, sites], {}
    for name, predictions in fits.predictions.items():
        predicted = predictions[fold.ood][:, sites]
        errors = (predicted - recorded) / scales
        of_test = np.abs(drawn.errors[name]())
        means = bootstrap_means(np.abs(errors), seed, levels=drawn.levels)
        drops = bootstrap_drops(of_test, np.abs(errors), seed, levels=drawn.levels)
        found[name] = OodScore(
            mae=(mae := mean_absolute_error(errors)),
            mae_ci95=percentile_interval(means),
            mse=mean_squared_error(errors),
            pearson_r=median(pearson_r_of_sites(predicted, recorded, [np.arange(len(recorded))])),
            drop=mae - drawn.mae[name],
            drop_ci95=percentile_interval(drops),
        )
    return found


def _interval_of_median(of_sites: np.ndarray, seed: int, levels: Levels) -> Interval | None:
    medians = bootstrap_medians(of_sites, seed, levels=levels)
    return None if np.isnan(medians).all() else percentile_interval(medians)


def interval_words(recordings: Recordings, n_seeds: int) -> str:
    """What intervals are drawn over, for ``protocol.interval``."""
    used = [
        level
        for level in LEVELS
        if any(level in levels for levels in _levels_of_regions(recordings).values())
    ]
    sites = " in ".join(["sites", *(f"{level}s" for level in reversed(used))])
    drawn = ["images", *(["seeds"] if n_seeds > 1 else [])]
    return f"95 %, bootstrap over {', '.join(drawn)} and {sites}, {N_RESAMPLES} resamples"


def notes_on_intervals(recordings: Recordings) -> list[str]:
    """Where intervals are too narrow, since there is little to draw from."""
    notes = []
    for region, levels in _levels_of_regions(recordings).items():
        n_sites = recordings.regions.count(region)
        if n_sites < FEW_SITES:
            notes.append(
                f"{region}: with fewer than {FEW_SITES} sites ({n_sites} here) intervals are too "
                "narrow: one of 95 % over 5 sites covers about 88 %"
            )
        notes += [
            f"{region}: {n} {level}s are few to draw from: intervals say little of other {level}s"
            for level, groups in levels.items()
            if (n := len(set(groups))) < FEW_GROUPS
        ]
    return notes


def _levels_of_regions(recordings: Recordings) -> dict[str, dict[str, tuple[str, ...]]]:
    region_of = np.array(recordings.regions)
    return {
        region: nested_levels(recordings.site_labels, np.flatnonzero(region_of == region))
        for region in recordings.region_names
    }


def notes_on_seeds(regions: Mapping[str, RegionScore]) -> list[str]:
    """How far the NRP-error of each region depends on the seed; nothing to say of a single one."""
    return [
        f"{name}: NRP-error {np.mean(errors):.4f} on average over {len(errors)} seeds, "
        f"standard deviation {np.std(errors, ddof=1):.4f}"
        for name, region in regions.items()
        if len(errors := region.nrp_error.by_seed) > 1
    ]


def _shares(fits: Fits, region: str) -> dict[str, float] | None:
    """The shares of the mixture, mean over folds; None where it is the network alone."""
    of_folds = [best["shares"][region] for best in fits.best if "shares" in best]
    if not of_folds or "+" not in fits.headline:
        return None
    return {name: float(np.mean([one[name] for one in of_folds])) for name in of_folds[0]}


def _share_repeated(counts: np.ndarray) -> float | None:
    """Of the averages, the share that has two responses or more: its noise is not carried over."""
    n_recorded = int((counts >= 1).sum())
    return int((counts >= 2).sum()) / n_recorded if n_recorded else None
