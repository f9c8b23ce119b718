"""Two predictors on the same held-out images: how much less one errs, and whether that is luck."""

from typing import Any

import numpy as np

from nrp_onnx.scoring.metrics import percentile_interval


def compare_errors(errors: np.ndarray, other: np.ndarray, resampled: np.ndarray) -> dict[str, Any]:
    """The mean absolute error of one predictor less that of another, paired by image and site.

    Both err on the same images and sites, and much of an error is the noise of the recording, which
    they share: the interval of the difference is far narrower than those of the two errors.

    Args:
        errors, other: float arrays (n_images, n_sites), predicted - recorded; NaN = not recorded, in
            both alike.
        resampled: the difference of their mean absolute errors in each resample, those of
            `nrp_onnx.scoring.metrics.bootstrap_means` with the same seed.

    Returns:
        ``difference``, negative where the first errs less; ``ci95``, by the two-way bootstrap over
        images and sites; ``wins``, at how many sites the first errs less; ``n_sites``.
    """
    paired = np.abs(errors) - np.abs(other)
    sums, counts = np.nansum(paired, axis=0), (~np.isnan(paired)).sum(axis=0)
    return {
        "difference": float(np.nanmean(paired)),
        "ci95": list(percentile_interval(resampled)),
        "wins": int((sums[counts > 0] < 0).sum()),
        "n_sites": int((counts > 0).sum()),
    }


def explainable_removed(mae: float, mae_of_mean: float, floor: float | None) -> float | None:
    """The share of the error that could be removed which a predictor removes.

    (MAE of the mean response - MAE) / (MAE of the mean response - noise floor): 0 for a predictor no
    better than the mean response, 1 for one that knows the true rates. None where there is no noise
    floor, or none below the error of the mean response.
    """
    if floor is None or not mae_of_mean > floor:
        return None
    return (mae_of_mean - mae) / (mae_of_mean - floor)
