"""The trial noise that is left in responses averaged over repetitions."""

import numpy as np

from nrp_onnx.recordings.types import Recordings


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
