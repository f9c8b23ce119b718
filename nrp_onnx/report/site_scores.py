"""How well each single site is predicted, and which images show it."""

import warnings
from dataclasses import dataclass

import numpy as np

from nrp_onnx.report.scored_run import Responses

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


def site_errors(responses: Responses, predictor: str) -> np.ndarray:
    """Mean absolute error of each site in score units, float64 array (n_sites,)."""
    errors = np.abs(responses.predicted[predictor] - responses.recorded) / responses.scale
    return _mean(errors)


def site_correlations(responses: Responses, predictor: str) -> np.ndarray:
    """Pearson's r of each site, within each fold and averaged over folds, float64 (n_sites,).

    Within folds, as each has a predictor of its own. NaN where a predictor or site is constant.
    """
    per_fold = []
    for number in np.unique(responses.fold):
        rows = responses.fold == number
        y = responses.recorded[rows]
        p = np.where(np.isnan(y), np.nan, responses.predicted[predictor][rows])
        y, p = y - _mean(y), p - _mean(p)
        spread = np.sqrt(_mean(y**2) * _mean(p**2))
        # What float32 leaves of a constant is no variance.
        constant = np.sqrt(_mean(p**2)) <= 1e-6 * responses.scale[rows][0]
        with np.errstate(divide="ignore", invalid="ignore"):
            per_fold.append(np.where(constant, np.nan, _mean(y * p) / spread))
    correlations: np.ndarray = np.mean(per_fold, axis=0)
    return correlations


def shown_sites(responses: Responses, region: str, n_each: int) -> list[ShownSite]:
    """The best and the worst predicted sites of a region by the NRP head's r, best first."""
    sites = responses.sites_of(region)
    correlations = site_correlations(responses, "nrp")[sites]
    sites, correlations = sites[~np.isnan(correlations)], correlations[~np.isnan(correlations)]
    order = sites[np.argsort(-correlations, kind="stable")]
    ranks = range(len(order))
    if len(order) > 2 * n_each:
        ranks = [*ranks[:n_each], *ranks[-n_each:]]  # type: ignore[assignment]
    shown = []
    for rank in ranks:
        place = int(order[rank])
        recorded = responses.recorded[:, place]
        errors = np.abs(responses.predicted["nrp"][:, place] - recorded)
        shown.append(
            ShownSite(place, rank + 1, len(order), _highest(recorded), _highest(errors)),
        )
    return shown


def _highest(values: np.ndarray) -> list[int]:
    order = np.argsort(-np.where(np.isnan(values), -np.inf, values), kind="stable")
    return [int(place) for place in order[:_IMAGES_A_SITE] if not np.isnan(values[place])]


def _mean(values: np.ndarray) -> np.ndarray:
    """Means over images; NaN for a site without any."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        means: np.ndarray = np.nanmean(values, axis=0)
    return means
