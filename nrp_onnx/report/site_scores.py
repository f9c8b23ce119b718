"""How well each single site is predicted, and which images show it."""

from dataclasses import dataclass

import numpy as np

from nrp_onnx.correlation import pearson_r
from nrp_onnx.scoring.finished_run import FinishedRun

_IMAGES_A_SITE = 3


@dataclass(frozen=True)
class ShownSite:
    """A site with the images that show how it is predicted.

    Attributes:
        place: of the site among all.
        rank: 1 for the site of its region that is predicted best.
        n_sites: of its region that have a correlation.
        driving: places of the held-out images with its highest recorded rates.
        surprising: places of those with the largest errors.
    """

    place: int
    rank: int
    n_sites: int
    driving: list[int]
    surprising: list[int]


def site_errors(run: FinishedRun, predictor: str) -> np.ndarray:
    """Mean absolute error of each site in units of the score, float64 array (n_sites,)."""
    errors = run.absolute_errors(predictor)
    n = (~np.isnan(errors)).sum(axis=0)
    means = np.full(n.shape, np.nan)
    np.divide(np.nansum(errors, axis=0), n, out=means, where=n > 0)
    return means


def site_correlations(run: FinishedRun, predictor: str) -> np.ndarray:
    """Pearson's r of each site, within each fold and averaged over folds, float64 (n_sites,).

    Within folds, as each has a predictor of its own. NaN where a predictor or site is constant.
    """
    per_fold = [
        pearson_r(run.predicted[predictor][run.fold == number], run.recorded[run.fold == number])
        for number in np.unique(run.fold)
    ]
    correlations: np.ndarray = np.mean(per_fold, axis=0)
    return correlations


def shown_sites(run: FinishedRun, region: str, n_each: int) -> list[ShownSite]:
    """The best and the worst predicted sites of a region by the NRP head's r, best first."""
    sites = run.sites_of(region)
    correlations = site_correlations(run, "nrp")[sites]
    sites, correlations = sites[~np.isnan(correlations)], correlations[~np.isnan(correlations)]
    order = sites[np.argsort(-correlations, kind="stable")]
    ranks = list(range(len(order)))
    if len(ranks) > 2 * n_each:
        ranks = ranks[:n_each] + ranks[-n_each:]
    return [
        ShownSite(
            int(order[rank]),
            rank + 1,
            len(order),
            _highest(run.recorded[:, order[rank]]),
            _highest(run.errors[:, order[rank]]),
        )
        for rank in ranks
    ]


def _highest(values: np.ndarray) -> list[int]:
    """Places of the highest values, those that are missing left out."""
    order = np.argsort(-np.where(np.isnan(values), -np.inf, values), kind="stable")
    return [int(place) for place in order[:_IMAGES_A_SITE] if not np.isnan(values[place])]
