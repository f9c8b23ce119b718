"""How well a site's responses repeat."""

import numpy as np
import scipy.sparse
from sklearn.model_selection import ShuffleSplit

from nrp_onnx.recordings.recordings import Recordings
from nrp_onnx.recordings.trial_variance import trial_variance
from nrp_onnx.statistics import pearson_r

N_SPLITS = 20
_SITES_A_BLOCK = 32


def split_half_reliability(
    recordings: Recordings, seed: int = 0, n_splits: int = N_SPLITS
) -> np.ndarray:
    """Split-half reliability of the responses averaged over all repetitions.

    The repetitions are split at random in halves, the same for all stimuli, as Brain-Score splits
    them (Schrimpf et al. 2018); the responses are averaged within each half. With r the correlation
    of both halves over the stimuli, the averages over all repetitions have the reliability

        2 r / (1 + r)

    (Spearman 1910, Brown 1910). It estimates which share of the variance of these averages comes
    from the stimuli, so its square root is the correlation that the true rates reach. A
    stimulus that one half lacks counts in the other splits only; where sites or stimuli differ in
    their number of repetitions, halves are uneven and the reliability is underestimated;
    `site_reliability` does better there. Brain-Score's ceiling is this one.

    Args:
        seed: of the splits.
        n_splits: how many there are.

    Returns:
        float64 array of shape (n_splits, n_sites); NaN where fewer than three stimuli have responses
        in both halves, or a site's responses never vary.
    """
    numbers, number_of_row = np.unique(recordings.repetition, return_inverse=True)
    reliability = np.full((n_splits, recordings.n_sites), np.nan)
    if len(numbers) < 2:
        return reliability
    splitter = ShuffleSplit(n_splits, train_size=0.5, random_state=seed)
    halves = [np.isin(number_of_row, first) for first, _ in splitter.split(numbers)]
    sums_of_all_and_halves = scipy.sparse.vstack(
        [_sum_of(recordings, rows) for rows in (np.ones(len(number_of_row), bool), *halves)],
        format="csr",
    )
    shape = (1 + n_splits, recordings.n_stimuli, -1)
    for start in range(0, recordings.n_sites, _SITES_A_BLOCK):
        block = slice(start, start + _SITES_A_BLOCK)
        responses = recordings.responses[:, block].astype(np.float64)
        there = ~np.isnan(responses)
        responses[~there] = 0
        if there.all():
            there = there[:, :1]  # one count does for all sites
        sums = (sums_of_all_and_halves @ responses).reshape(shape)
        counts = (sums_of_all_and_halves @ there.astype(np.float64)).reshape(shape)
        first = _mean(sums[1:], counts[1:])
        second = _mean(sums[:1] - sums[1:], counts[:1] - counts[1:])
        r = pearson_r(first, second)
        np.divide(2 * r, 1 + r, out=reliability[:, block], where=r > -1)
    return reliability


def site_reliability(recordings: Recordings, seed: int = 0) -> np.ndarray:
    """The reliability of each site's averages, over all stimuli and as often as each was repeated.

    It is the share of the variance of a site's averages over the stimuli that comes from the
    stimuli. Where all of them have the same number of responses, it is the split-half reliability,
    averaged over splits. Elsewhere halves would be those of the repeated stimuli only, and uneven;
    there it is

        1 - mean over stimuli of (noise variance of the average) / variance of the averages,

    with the noise variances of `trial_variance`, which are measured where a stimulus was repeated
    and carried over to the others (the intraclass correlation ICC(1, k) of an unbalanced one-way
    layout; Shrout and Fleiss 1979). It has the same expectation, and is below 0 by chance only.

    Args:
        seed: of the splits.

    Returns:
        float64 array of shape (n_sites,); NaN where fewer than three stimuli are repeated, or a
        site's averages never vary.
    """
    counts = recordings.repetition_counts()
    equal = (counts == counts[:1]).all(axis=0)
    reliability = np.full(recordings.n_sites, np.nan)
    unequal = np.flatnonzero(~equal & ((counts >= 2).sum(axis=0) >= 3))
    if len(unequal):
        variance = trial_variance(recordings)
    for site in unequal:
        recorded = counts[:, site] >= 1
        averages = variance.averages[recorded, site]
        noise = variance.of_averages[recorded, site].mean()
        if np.ptp(averages) > 0:
            reliability[site] = 1 - noise / averages.var(ddof=1)
    if equal.any():
        reliability[equal] = _mean_over_splits(split_half_reliability(recordings, seed))[equal]
    return reliability


def _mean_over_splits(per_split: np.ndarray) -> np.ndarray:
    n = (~np.isnan(per_split)).sum(axis=0)
    mean = np.full(per_split.shape[1], np.nan)
    np.divide(np.nansum(per_split, axis=0), n, out=mean, where=n > 0)
    return mean


def _sum_of(recordings: Recordings, rows: np.ndarray) -> scipy.sparse.csr_array:
    """The matrix that adds up some presentations by stimulus, (n_stimuli, n_presentations)."""
    places = np.flatnonzero(rows)
    return scipy.sparse.csr_array(
        (np.ones(len(places)), (recordings.presentation_stimulus[places], places)),
        shape=(recordings.n_stimuli, len(rows)),
    )


def _mean(sums: np.ndarray, counts: np.ndarray) -> np.ndarray:
    mean = np.full(sums.shape, np.nan)
    np.divide(sums, counts, out=mean, where=np.broadcast_to(counts > 0, sums.shape))
    return mean
