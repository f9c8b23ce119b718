"""How well a site's responses repeat, and the trial noise that is left in averages."""

import numpy as np
import scipy.sparse
from sklearn.model_selection import ShuffleSplit

from nrp_onnx.recordings.recordings import Recordings
from nrp_onnx.statistics import pearson_r


def trial_noise(recordings: Recordings, seed: int = 0, n_splits: int = 20) -> np.ndarray:
    """Expected absolute noise of the averages, by splitting the repetitions.

    A site's responses to one stimulus are r_i = m + e_i, i = 1 to n, with independent noise e_i of
    variance s^2. Their average differs from the true rate m by e, of variance s^2 / n. Split the n
    repetitions at random into halves A and B: m cancels in the difference of the halves' means,
    which has the variance s^2 (1 / n_A + 1 / n_B). Therefore

        d = (mean_A - mean_B) sqrt((1 / n) / (1 / n_A + 1 / n_B))

    has the variance of e, and, being a mean of n terms too, nearly its shape (that of e made
    symmetric), where a Gaussian formula would have the variance only. |d|, averaged over
    ``n_splits`` random splits, estimates E|e|.

    A predictor that knows the true rates errs by e: the mean of the result over stimuli and sites
    is the smallest mean absolute error that can be reached on these averages.

    Args:
        seed: of the splits.
        n_splits: random splits a stimulus.

    Returns:
        float64 array of shape (n_stimuli, n_sites) in the units of the responses; NaN where a site
        has fewer than two responses to a stimulus.
    """
    rng = np.random.default_rng(seed)
    noise = np.full((recordings.n_stimuli, recordings.n_sites), np.nan)
    order = np.argsort(recordings.presentation_stimulus, kind="stable")
    ends = np.cumsum(np.bincount(recordings.presentation_stimulus, minlength=len(noise)))
    for stimulus, rows in enumerate(np.split(order, ends[:-1])):
        noise[stimulus] = _noise_of_mean(recordings.responses[rows], n_splits, rng)
    return noise


def _noise_of_mean(responses: np.ndarray, n_splits: int, rng: np.random.Generator) -> np.ndarray:
    """Mean of |d| for one stimulus: (n_repetitions, n_sites) to (n_sites,)."""
    there = ~np.isnan(responses)
    values = np.where(there, responses, 0).astype(np.float64)
    n = there.sum(axis=0)
    n_a = n // 2
    n_b = n - n_a
    shuffles = rng.permuted(np.tile(np.arange(len(responses)), (n_splits, 1)), axis=1)
    # Half A of a site are the first n_a of its own responses in the shuffled order, so that sites
    # with missing responses have even halves too; counting is needed only where some are missing.
    if there.all():
        sum_a = values[shuffles[:, : len(responses) // 2]].sum(axis=1)
    else:
        in_a = there[shuffles] & (np.cumsum(there[shuffles], axis=1) <= n_a)
        sum_a = np.where(in_a, values[shuffles], 0).sum(axis=1)
    sum_b = values.sum(axis=0) - sum_a
    with np.errstate(divide="ignore", invalid="ignore"):
        scale = np.sqrt((1 / n) / (1 / n_a + 1 / n_b))
        noise: np.ndarray = np.abs(sum_a / n_a - sum_b / n_b).mean(axis=0) * scale
    return np.where(n >= 2, noise, np.nan)


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
    from the stimuli, so its square root is the correlation that a perfect predictor reaches. A
    stimulus that one half lacks counts in the other splits only; where sites or stimuli differ in
    their number of repetitions, halves are uneven and the reliability is a little underestimated.

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
    """The split-half reliability of each site, averaged over splits: float64 (n_sites,), or NaN."""
    per_split = split_half_reliability(recordings, seed)
    n = (~np.isnan(per_split)).sum(axis=0)
    mean = np.full(recordings.n_sites, np.nan)
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
