"""The trial noise that is left in averages over repetitions, and the floor that it sets."""

import numpy as np
from scipy.special import gammaincinv, gammaln, xlogy

from nrp_onnx.recordings.recordings import Recordings
from nrp_onnx.recordings.trial_variance import TrialVariance, trial_variance

#: Averages of fewer spikes, by a site's mean rate, have their noise from Poisson counts. Half-splits
#: of Poisson counts are 1 % too low at 5 spikes, 8 % at 1 and 38 % at 0.4, more where rates vary.
FEW_SPIKES = 10.0
_N_RATES = 32


def trial_noise(recordings: Recordings, seed: int = 0, n_splits: int = 20) -> np.ndarray:
    """Expected absolute noise of the averages: E|average - true rate| by stimulus and site.

    A site's responses to one stimulus are r_i = m + e_i, i = 1 to n, with independent noise e_i of
    variance s^2. Their average differs from the true rate m by e, of variance s^2 / n.

    Repeated stimuli: split the n repetitions at random into halves A and B. m cancels in the
    difference of the halves' means, which has the variance s^2 (1 / n_A + 1 / n_B). Therefore

        d = (mean_A - mean_B) sqrt((1 / n) / (1 / n_A + 1 / n_B))

    has the variance of e, and, being a mean of n terms too, nearly its shape (that of e made
    symmetric), where a Gaussian formula would have the variance only. |d|, averaged over
    ``n_splits`` random splits, estimates E|e|.

    A stimulus with one response has no halves: the site's noise is carried over from its repeated
    stimuli, by the model of `trial_variance`. Where the noise is constant, |r_i - r_k| / sqrt(2),
    averaged over all pairs of responses to the same stimulus, estimates E|e|, as above with n = 1.

    Where it is Poisson-like, a response counts r / F spikes, F being the Fano factor of the site. N
    Poisson spikes of mean a have E|N - a| = 2 a^(k + 1) exp(-a) / k!, k = floor(a) (De Moivre; see
    Diaconis and Zabell 1991), where a = n m / F. m is not known: the formula is averaged over the
    posterior of m, given the average and a gamma distribution of the site's rates over the stimuli
    with the mean and variance that were measured. That is also done for repeated stimuli of such a
    site whose averages hold fewer than `FEW_SPIKES` spikes at the site's mean rate: their halves
    are often equal, mostly both 0, where the average still is off the rate. The shape of e is that
    of Poisson counts then, not measured.

    The mean of the result over stimuli and sites estimates the mean absolute error of a predictor
    that knows the true rates. A predictor that knows which sites vary together over trials, or for
    skewed noise gives medians, can err less.

    Args:
        seed: of the splits.
        n_splits: random splits a stimulus.

    Returns:
        float64 array of shape (n_stimuli, n_sites) in the units of the responses; NaN where a site
        was not recorded for a stimulus, or has no stimulus with two responses.
    """
    rng = np.random.default_rng(seed)
    variance = trial_variance(recordings)
    noise = np.full((recordings.n_stimuli, recordings.n_sites), np.nan)
    of_pairs = np.zeros(noise.shape)
    order = np.argsort(recordings.presentation_stimulus, kind="stable")
    ends = np.cumsum(np.bincount(recordings.presentation_stimulus, minlength=len(noise)))
    single = (variance.counts == 1) & ~np.isnan(variance.of_averages)
    for stimulus, rows in enumerate(np.split(order, ends[:-1])):
        noise[stimulus] = _noise_of_mean(recordings.responses[rows], n_splits, rng)
        if single.any():
            of_pairs[stimulus] = _noise_of_one(recordings.responses[rows])
    few = _few_spikes(variance)
    degrees = np.maximum(variance.counts - 1, 0)
    for site in np.flatnonzero((single | few).any(axis=0)).tolist():
        if variance.poisson_like[site]:
            places = np.flatnonzero(single[:, site] | few[:, site])
            noise[places, site] = _noise_of_counts(variance, places, site)
        else:
            weights = degrees[:, site] / degrees[:, site].sum()
            noise[single[:, site], site] = weights @ of_pairs[:, site]
    return noise


def notes_on_noise(recordings: Recordings) -> list[str]:
    """What the noise floor of each region rests on, where not on half-splits of every average."""
    variance = trial_variance(recordings)
    few = _few_spikes(variance) & (variance.counts >= 2)
    region_of = np.array(recordings.regions)
    notes = []
    for name in recordings.region_names:
        sites = region_of == name
        counts = variance.counts[:, sites]
        n_recorded = (counts >= 1).sum()
        measured = (counts >= 2).sum() / max(n_recorded, 1)
        if 0 < measured < 1:
            notes.append(
                f"{name}: noise floor and reliability rest on the {_percent(measured)} of the "
                "averages that have two responses or more; the noise of the others is carried over "
                "by site"
            )
        if few[:, sites].any():
            share = few[:, sites].sum() / n_recorded
            notes.append(
                f"{name}: {_percent(share)} of the averages hold fewer than {FEW_SPIKES:g} spikes: "
                "half-splits would set their noise floor too low, so it is that of Poisson counts"
            )
    return notes


def _percent(share: float) -> str:
    """Whole percents; more digits where they would be 0 or 100 and are not."""
    return f"{100 * share:.0f} %" if 0.01 <= share <= 0.99 or share == 1 else f"{100 * share:.3g} %"


def _few_spikes(variance: TrialVariance) -> np.ndarray:
    """Which averages of Poisson-like sites hold few spikes: bool (n_stimuli, n_sites).

    The mean rate of the site decides, not the average itself, which would choose by its own noise.
    """
    with np.errstate(invalid="ignore"):
        spikes = variance.counts * (variance.mean_rate / variance.fano)
        few: np.ndarray = variance.poisson_like & (variance.counts >= 1) & (spikes < FEW_SPIKES)
    return few


def _noise_of_counts(variance: TrialVariance, stimuli: np.ndarray, site: int) -> np.ndarray:
    """E|e| of Poisson-like averages of one site, (n_stimuli given,)."""
    fano = variance.fano[site]
    shape = variance.mean_rate[site] ** 2 / variance.rate_variance[site]
    counts = variance.counts[stimuli, site].astype(np.float64)
    # Averages of few counts are often the same: each is looked up once.
    pairs, place = np.unique(
        np.stack([counts, variance.averages[stimuli, site]]), axis=1, return_inverse=True
    )
    n, average = pairs[:, :, None]
    quantiles = (np.arange(_N_RATES) + 0.5) / _N_RATES
    # The gamma posterior of the rate in spikes of n trials, n m / F, at equally likely places.
    per_spike = shape / variance.mean_rate[site] + n / fano
    spikes = gammaincinv(shape + n * average / fano, quantiles) / per_spike * n / fano
    k = np.floor(spikes)
    off = 2 * np.exp(xlogy(k + 1, spikes) - spikes - gammaln(k + 1))
    found: np.ndarray = (off.mean(axis=1) * fano / n[:, 0])[place.ravel()]
    return found


def _noise_of_one(responses: np.ndarray) -> np.ndarray:
    """Mean of |r_i - r_k| / sqrt(2) over pairs: (n_repetitions, n_sites) to (n_sites,); 0 of one."""
    values = np.sort(responses.astype(np.float64), axis=0)  # the missing ones come last
    n = (~np.isnan(values)).sum(axis=0)
    weights = 2 * np.arange(1, len(values) + 1)[:, None] - n - 1
    total = (weights * np.nan_to_num(values)).sum(axis=0)
    mean: np.ndarray = total / np.maximum(n * (n - 1) / 2, 1) / np.sqrt(2)
    return mean


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
