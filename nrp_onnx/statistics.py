"""Errors, correlations and paired differences of predictions."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from nrp_onnx.bootstrap import Interval, bootstrap_means, percentile_interval

__all__ = [
    "Interval",
    "PairedDifference",
    "SiteCounts",
    "bootstrap_means",
    "compare_errors",
    "explainable_removed",
    "mean_absolute_error",
    "mean_of_images",
    "mean_squared_error",
    "median",
    "median_pearson_r",
    "median_r2",
    "noise_corrected_r2",
    "pearson_r",
    "pearson_r_of_sites",
    "percentile_interval",
    "rank_correlation",
]

_FEWEST = 3
#: What is left of a constant after rounding is no variance.
_ROUNDING = 1e-9


def pearson_r(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Pearson's r over images.

    Args:
        x, y: float64 arrays of shape (..., n_images, n_sites); NaN is missing, and leaves out the
            image for that site.

    Returns:
        Float64 array of shape (..., n_sites); NaN where x or y never varies, or fewer than three
        images have both.
    """
    there = ~(np.isnan(x) | np.isnan(y))
    n = there.sum(axis=-2)
    deviations, lengths, varies = [], [], n >= _FEWEST
    for values in (x, y):
        filled = np.where(there, values, 0.0)
        mean = filled.sum(axis=-2, keepdims=True) / np.maximum(n, 1)[..., None, :]
        moved = np.where(there, values - mean, 0.0)
        length = np.sqrt((moved**2).sum(axis=-2))
        varies = varies & (length > _ROUNDING * np.sqrt(n) * np.abs(filled).max(axis=-2))
        deviations.append(moved)
        lengths.append(length)
    products = (deviations[0] * deviations[1]).sum(axis=-2)
    r = np.full(products.shape, np.nan)
    np.divide(products, lengths[0] * lengths[1], out=r, where=varies)
    return r


def mean_absolute_error(errors: np.ndarray) -> float:
    """Mean of |predicted - recorded|, float array (n_images, n_sites), NaN = not recorded."""
    return float(np.nanmean(np.abs(errors)))


def mean_squared_error(errors: np.ndarray) -> float:
    """Mean of (predicted - recorded)^2, float array (n_images, n_sites), NaN = not recorded."""
    return float(np.nanmean(errors**2))


def median_r2(predicted: np.ndarray, recorded: np.ndarray) -> float | None:
    """Median over sites of 1 - SS_res / SS_tot on the held-out images; None if undefined."""
    total = (recorded - np.nanmean(recorded, axis=0)) ** 2
    with np.errstate(divide="ignore", invalid="ignore"):
        r2 = 1 - np.nansum((predicted - recorded) ** 2, axis=0) / np.nansum(total, axis=0)
    return median(r2)


def pearson_r_of_sites(
    predicted: np.ndarray, recorded: np.ndarray, folds: list[np.ndarray]
) -> np.ndarray:
    """Pearson's r of each site, taken within each fold and averaged over folds: float64 (n_sites,).

    Within folds, since each has a predictor of its own: across folds, even the mean of the training
    responses varies with what is held out. A fold in which a predictor is constant counts as 0: it
    explains nothing there. NaN where it is constant in all folds.
    """
    per_fold = np.array([pearson_r(predicted[test], recorded[test]) for test in folds])
    is_constant = np.array([np.ptp(predicted[test], axis=0) == 0 for test in folds])
    per_fold[is_constant & ~is_constant.all(axis=0)] = 0
    mean: np.ndarray = per_fold.mean(axis=0)
    return mean


def median_pearson_r(
    predicted: np.ndarray, recorded: np.ndarray, folds: list[np.ndarray]
) -> float | None:
    """Median over sites of `pearson_r_of_sites`; None where there is none."""
    return median(pearson_r_of_sites(predicted, recorded, folds))


def median(values: np.ndarray) -> float | None:
    """The median of the finite values; None where there are none."""
    finite = values[np.isfinite(values)]
    return float(np.median(finite)) if finite.size else None


def noise_corrected_r2(r: np.ndarray, reliability: np.ndarray) -> np.ndarray:
    """r^2 of each site over the reliability of its averages: float64 (n_sites,).

    The square of the correlation with the averages is the share of their variance that is predicted, the
    reliability the share that comes from the stimuli. Nothing is clipped: noise in both can carry a
    site over 1, and the square hides the sign of an r below 0. NaN where there is no r, or no
    reliability over 0.

    Args:
        r: Pearson's r of each site with its averages, float64 (n_sites,).
        reliability: of each site, float64 (n_sites,).
    """
    found: np.ndarray = r**2 / np.where(reliability > 0, reliability, np.nan)
    return found


def mean_of_images(values: np.ndarray) -> np.ndarray:
    """Mean over images, float array (n_images, n_sites) to (n_sites,); NaN for a site without a value."""
    n = (~np.isnan(values)).sum(axis=0)
    means = np.full(n.shape, np.nan)
    np.divide(np.nansum(values, axis=0), n, out=means, where=n > 0)
    return means


@dataclass(frozen=True)
class SiteCounts:
    """At how many single sites two predictors differ, at a false discovery rate of 5 %.

    Attributes:
        better: sites at which the first errs less.
        worse: sites at which it errs more.
    """

    better: int
    worse: int


@dataclass(frozen=True)
class PairedDifference:
    """The error of one predictor less that of another, on the same images and sites.

    Attributes:
        difference: of the mean absolute errors; negative where the first errs less.
        ci95: its 95 % interval, by the bootstrap over images and sites.
        wins: at how many of the ``n_sites`` sites the first errs less.
        mse_difference: of the mean squared errors; None in a result of an older version.
        mse_ci95: its 95 % interval.
        significant_sites: by a paired test of each site.
    """

    difference: float
    ci95: Interval
    wins: int
    n_sites: int
    mse_difference: float | None = None
    mse_ci95: Interval | None = None
    significant_sites: SiteCounts | None = None


def compare_errors(
    errors: np.ndarray,
    other: np.ndarray,
    resampled: np.ndarray,
    resampled_squares: np.ndarray | None = None,
    significant_sites: SiteCounts | None = None,
) -> PairedDifference:
    """The mean error of one predictor less that of another, paired by image and site.

    Both err on the same images and sites, and much of an error is the noise of the recording, which
    they share: the interval of the difference is far narrower than those of the two errors.

    Args:
        errors, other: float arrays (n_images, n_sites), predicted - recorded; NaN = not recorded, in
            both alike.
        resampled: the difference of their mean absolute errors in each resample, those of
            `nrp_onnx.bootstrap.bootstrap_means` with the same seed.
        resampled_squares: the same of their mean squared errors.
        significant_sites: what is known of the single sites.
    """
    paired = mean_of_images(np.abs(errors) - np.abs(other))
    compared = ~np.isnan(paired)
    return PairedDifference(
        difference=float(np.nanmean(np.abs(errors) - np.abs(other))),
        ci95=percentile_interval(resampled),
        wins=int((paired[compared] < 0).sum()),
        n_sites=int(compared.sum()),
        mse_difference=float(np.nanmean(errors**2 - other**2)),
        mse_ci95=None if resampled_squares is None else percentile_interval(resampled_squares),
        significant_sites=significant_sites,
    )


def explainable_removed(mae: float, mae_of_mean: float, floor: float | None) -> float | None:
    """The share of the error that could be removed which a predictor removes.

    (MAE of the mean response - MAE) / (MAE of the mean response - noise floor): 0 for a predictor no
    better than the mean response, 1 for one that knows the true rates. It depends on how noisy the
    sites are, and is not to be compared between recordings: an absolute error does not split into noise
    and the rest as a variance does, so the noisier the sites, the less of the same way shows. Measure of
    a site that can be compared: `noise_corrected_r2`. None where there is no noise floor, or none below
    the error of the mean response.
    """
    if floor is None or not mae_of_mean > floor:
        return None
    return (mae_of_mean - mae) / (mae_of_mean - floor)


def rank_correlation(pairs: Sequence[tuple[float, float]]) -> dict[str, float] | None:
    """Spearman's correlation of two values over models.

    Args:
        pairs: two values of each model.

    Returns:
        ``rho``, ``p`` (two-sided, by permutation: exact up to 8 models) and ``n``; None for fewer
        than three models, or where one of the values is the same for all.
    """
    if len(pairs) < 3 or any(len(set(values)) == 1 for values in zip(*pairs, strict=True)):
        return None
    first, second = (stats.zscore(stats.rankdata(values)) for values in zip(*pairs, strict=True))

    def rho(permuted: np.ndarray, axis: int) -> np.ndarray:
        found: np.ndarray = (permuted * second).mean(axis=axis)
        return found

    test = stats.permutation_test(
        (first,),
        rho,
        permutation_type="pairings",
        vectorized=True,
        n_resamples=50_000,
        rng=np.random.default_rng(0),
    )
    return {"rho": float(test.statistic), "p": float(test.pvalue), "n": len(pairs)}
