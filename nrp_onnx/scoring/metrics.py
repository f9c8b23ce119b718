"""The NRP-error and what stands beside it, with its uncertainty."""

from copy import deepcopy
from functools import lru_cache

import numpy as np

from nrp_onnx.correlation import pearson_r


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
    """
    n_images, n_sites = values.shape
    images, sites = _drawn(seed, n_images, n_sites, n_resamples)
    there = ~np.isnan(values)
    sums = ((images @ np.where(there, values, 0)) * sites).sum(axis=1)
    if there.all():  # every resample has as many values
        counts = np.full(n_resamples, float(values.size))
    else:
        counts = ((images @ there.astype(np.float64)) * sites).sum(axis=1)
    means: np.ndarray = sums / np.maximum(counts, 1)
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


def percentile_interval(means: np.ndarray, level: float = 0.95) -> tuple[float, float]:
    """The percentile interval of what a bootstrap gave."""
    tail = (1 - level) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
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
