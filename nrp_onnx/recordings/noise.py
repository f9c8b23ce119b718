"""The trial noise that is left in responses averaged over repetitions."""

import numpy as np

from nrp_onnx.recordings.types import Recordings


def trial_noise(recordings: Recordings, seed: int = 0, n_splits: int = 20) -> np.ndarray:
    """Expected absolute noise of the averages, float64 array (n_stimuli, n_sites), in their units.

    The n repetitions of a stimulus are split at random into halves A and B. With trial variance
    s^2 the difference of the halves' means has the variance s^2 (1/n_A + 1/n_B), and the noise of
    the average over all n has s^2 / n; so |mean_A - mean_B| sqrt((1/n) / (1/n_A + 1/n_B)) is a
    sample of the absolute noise in the average, without the signal and without assuming that the
    noise is Gaussian. It is averaged over ``n_splits`` splits. A predictor that knows the true
    rate has just this error, so the mean over stimuli and sites is the noise floor of the MAE.

    NaN where there are fewer than two repetitions.
    """
    rng = np.random.default_rng(seed)
    where = recordings.presentation_stimulus
    values = np.nan_to_num(recordings.responses.astype(np.float64))
    there = ~np.isnan(recordings.responses)
    shape = (recordings.n_stimuli, recordings.n_sites)
    order = np.argsort(where, kind="stable")
    starts = np.searchsorted(where[order], np.arange(recordings.n_stimuli))
    total = np.zeros(shape)
    used = np.zeros(shape)
    for _ in range(n_splits):
        # Shuffle the presentations of each stimulus, then deal them out to the two halves in turn.
        shuffled = np.lexsort((rng.random(len(where)), where))
        half_a = np.empty(len(where), bool)
        half_a[shuffled] = (np.arange(len(where)) - np.repeat(starts, np.diff([*starts, len(where)]))) % 2 == 0
        means, counts = [], []
        for half in (half_a, ~half_a):
            kept = there & half[:, None]
            count, sums = np.zeros(shape), np.zeros(shape)
            np.add.at(count, where, kept)
            np.add.at(sums, where, values * kept)
            counts.append(count)
            with np.errstate(invalid="ignore"):
                means.append(sums / count)
        both = (counts[0] > 0) & (counts[1] > 0)
        with np.errstate(divide="ignore", invalid="ignore"):
            scale = np.sqrt(1 / (counts[0] + counts[1]) / (1 / counts[0] + 1 / counts[1]))
            sample = np.abs(means[0] - means[1]) * scale
        total[both] += sample[both]
        used += both
    with np.errstate(invalid="ignore"):
        return total / np.where(used > 0, used, np.nan)
