"""Errors, correlations, bootstrap intervals and paired differences of predictions."""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy import stats

Interval = tuple[float, float]

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


def bootstrap_means(values: np.ndarray, seed: int, n_resamples: int = 2000) -> np.ndarray:
    """Means of ``values`` over resampled images and sites, float64 array (n_resamples,).

    Both images and sites are drawn with replacement, independently (a two-way, or pigeonhole,
    bootstrap: Owen 2007), since the score is to hold for other images and other sites. The same seed
    draws the same images whatever the sites are, so that means of several regions belong together.

    Args:
        values: float array (n_images, n_sites), NaN = not recorded.

    Returns:
        NaN for a resample that holds no recorded value.
    """
    n_images, n_sites = values.shape
    images, sites = _drawn(seed, n_images, n_sites, n_resamples)
    there = ~np.isnan(values)
    sums = ((images @ np.where(there, values, 0)) * sites).sum(axis=1)
    if there.all():  # every resample has as many values
        counts = np.full(n_resamples, float(values.size))
    else:
        counts = ((images @ there.astype(np.float64)) * sites).sum(axis=1)
    means = np.full(n_resamples, np.nan)
    np.divide(sums, counts, out=means, where=counts > 0)
    return means


@lru_cache(maxsize=2)
def _drawn(
    seed: int, n_images: int, n_sites: int, n_resamples: int
) -> tuple[np.ndarray, np.ndarray]:
    """How often each resample holds each image and each site; kept, as every predictor takes the same.

    Returns:
        float64 (n_resamples, n_images) and (n_resamples, n_sites).
    """
    images, rng = _drawn_images(seed, n_images, n_resamples)
    sites = _draws(deepcopy(rng), n_sites, n_resamples)
    return images, sites


@lru_cache(maxsize=1)
def _drawn_images(
    seed: int, n_images: int, n_resamples: int
) -> tuple[np.ndarray, np.random.Generator]:
    """The images, which are those of every region; and what draws the sites."""
    rng = np.random.default_rng(seed)
    return _draws(rng, n_images, n_resamples), rng


def _draws(rng: np.random.Generator, n: int, n_resamples: int) -> np.ndarray:
    return rng.multinomial(n, np.full(n, 1 / n), n_resamples).astype(np.float64)


def percentile_interval(means: np.ndarray, level: float = 0.95) -> Interval:
    """The percentile interval of what a bootstrap gave; resamples without a value are left out."""
    tail = (1 - level) / 2
    low, high = np.quantile(means[~np.isnan(means)], [tail, 1 - tail])
    return float(low), float(high)


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
    responses varies with what is held out. NaN where a predictor is constant in a fold.
    """
    per_fold = [pearson_r(predicted[test], recorded[test]) for test in folds]
    mean: np.ndarray = np.mean(per_fold, axis=0)
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


@dataclass(frozen=True)
class PairedDifference:
    """The error of one predictor less that of another, on the same images and sites.

    Attributes:
        difference: of the mean absolute errors; negative where the first errs less.
        ci95: its 95 % interval, by the two-way bootstrap over images and sites.
        wins: at how many of the ``n_sites`` sites the first errs less.
    """

    difference: float
    ci95: Interval
    wins: int
    n_sites: int


def compare_errors(
    errors: np.ndarray, other: np.ndarray, resampled: np.ndarray
) -> PairedDifference:
    """The mean absolute error of one predictor less that of another, paired by image and site.

    Both err on the same images and sites, and much of an error is the noise of the recording, which
    they share: the interval of the difference is far narrower than those of the two errors.

    Args:
        errors, other: float arrays (n_images, n_sites), predicted - recorded; NaN = not recorded, in
            both alike.
        resampled: the difference of their mean absolute errors in each resample, those of
            `nrp_onnx.statistics.bootstrap_means` with the same seed.
    """
    paired = np.abs(errors) - np.abs(other)
    sums, counts = np.nansum(paired, axis=0), (~np.isnan(paired)).sum(axis=0)
    return PairedDifference(
        difference=float(np.nanmean(paired)),
        ci95=percentile_interval(resampled),
        wins=int((sums[counts > 0] < 0).sum()),
        n_sites=int((counts > 0).sum()),
    )


def explainable_removed(mae: float, mae_of_mean: float, floor: float | None) -> float | None:
    """The share of the error that could be removed which a predictor removes.

    (MAE of the mean response - MAE) / (MAE of the mean response - noise floor): 0 for a predictor no
    better than the mean response, 1 for one that knows the true rates. None where there is no noise
    floor, or none below the error of the mean response.
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
