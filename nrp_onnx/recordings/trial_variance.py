"""The variance of a site's noise from trial to trial, and of what is left of it in averages."""

from dataclasses import dataclass

import numpy as np
import scipy.sparse

from nrp_onnx.recordings.recordings import Recordings

_SITES_A_BLOCK = 32
#: Whole counts of a lower mean are taken for Poisson-like: too few differ to tell it from variances.
_FEW_SPIKES = 2.0
#: The rates of a site vary at least by its mean over the root of this: a prior of rates has a width.
_MOST_SHAPE = 1e4


@dataclass(frozen=True, eq=False)
class TrialVariance:
    """How noisy each site is, from the stimuli that it was recorded for more than once.

    Attributes:
        counts: responses of a site to a stimulus, int64 (n_stimuli, n_sites).
        averages: their mean, float64 (n_stimuli, n_sites); NaN where there is none.
        of_averages: the noise variance of each average, float64 (n_stimuli, n_sites): measured
            where the stimulus was repeated, else carried over from the stimuli that were; NaN
            where a site was not recorded, or no stimulus of it was repeated.
        poisson_like: whether a site's variance grows with its mean rate, bool (n_sites,).
        fano: variance over mean of its trials, float64 (n_sites,); 1 for Poisson counts.
        mean_rate: over the stimuli, float64 (n_sites,).
        rate_variance: that of its true rates over the stimuli, float64 (n_sites,); over 0.
    """

    counts: np.ndarray
    averages: np.ndarray
    of_averages: np.ndarray
    poisson_like: np.ndarray
    fano: np.ndarray
    mean_rate: np.ndarray
    rate_variance: np.ndarray


def trial_variance(recordings: Recordings) -> TrialVariance:
    """Fit the noise of each site where it is repeated, and carry it to the other stimuli.

    With n_i responses to stimulus i of mean m_i and squares SS_i about it, the variance of a trial
    at a repeated stimulus is SS_i / (n_i - 1), and that of its average 1 / n_i of this. Others have
    no SS_i. Two models carry it to them, each without bias where repeated stimuli are like others:

        constant        v   = sum of SS_i / sum of (n_i - 1)
        Poisson-like    v_i = F m_i,  F = sum of SS_i / sum of (n_i - 1) m_i     (F: Fano factor)

    A site gets the model under which its measured variances are likelier (the likelihood of
    variances of Gaussian trials: scaled chi-square with n_i - 1 degrees of freedom). For this choice
    the m_i are shrunk towards their mean, since a rate that is low by chance goes with a variance
    that is low by chance. Whole counts of a mean under two spikes are Poisson-like without that
    choice; responses below 0 never are.
    """
    shape = (recordings.n_stimuli, recordings.n_sites)
    n = len(recordings.presentation_stimulus)
    by_stimulus = scipy.sparse.csr_array(
        (np.ones(n), (recordings.presentation_stimulus, np.arange(n))), shape=(shape[0], n)
    )
    counts, averages = np.zeros(shape, np.int64), np.full(shape, np.nan)
    of_averages = np.full(shape, np.nan)
    of_sites = [_SiteNoise()] * shape[1]
    for start in range(0, shape[1], _SITES_A_BLOCK):
        block = slice(start, start + _SITES_A_BLOCK)
        responses = recordings.responses[:, block].astype(np.float64)
        there = ~np.isnan(responses)
        counts[:, block] = np.rint(by_stimulus @ there.astype(np.float64))
        sums = by_stimulus @ np.where(there, responses, 0)
        found = averages[:, block]
        np.divide(sums, counts[:, block], out=found, where=counts[:, block] > 0)
        differences = np.where(there, responses - found[recordings.presentation_stimulus], 0)
        squares = by_stimulus @ differences**2
        for place in range(responses.shape[1]):
            own = responses[there[:, place], place]
            site = start + place
            of_sites[site], of_averages[:, site] = _noise_of_site(
                counts[:, site], averages[:, site], squares[:, place], own
            )
    return TrialVariance(
        counts,
        averages,
        of_averages,
        np.array([site.poisson_like for site in of_sites], bool),
        np.array([site.fano for site in of_sites]),
        np.array([site.mean_rate for site in of_sites]),
        np.array([site.rate_variance for site in of_sites]),
    )


@dataclass(frozen=True)
class _SiteNoise:
    poisson_like: bool = False
    fano: float = np.nan
    mean_rate: float = np.nan
    rate_variance: float = np.nan


def _noise_of_site(
    counts: np.ndarray, averages: np.ndarray, squares: np.ndarray, responses: np.ndarray
) -> tuple[_SiteNoise, np.ndarray]:
    """The model of one site, and the noise variance of its averages, (n_stimuli,)."""
    repeated, recorded = counts >= 2, counts >= 1
    if not repeated.any():
        return _SiteNoise(), np.full(len(counts), np.nan)
    degrees = counts[repeated] - 1
    measured = squares[repeated] / degrees
    constant = squares[repeated].sum() / degrees.sum()
    mean_rate = averages[recorded].mean()
    spikes = (degrees * averages[repeated]).sum()
    if responses.min() < 0 or constant <= 0 or spikes <= 0:
        variance = _of_averages(counts, np.full(len(counts), constant), measured)
        return _SiteNoise(mean_rate=mean_rate), variance
    fano = squares[repeated].sum() / spikes
    variance = _of_averages(counts, fano * averages, measured)
    rate_variance = max(
        averages[recorded].var() - variance[recorded].mean(), mean_rate**2 / _MOST_SHAPE
    )
    site = _SiteNoise(True, fano, mean_rate, rate_variance)
    share = rate_variance / (rate_variance + fano * mean_rate / counts[repeated])
    modelled = fano * (mean_rate + share * (averages[repeated] - mean_rate))
    loss = (degrees * (np.log(modelled) + measured / modelled)).sum()
    loss_of_constant = (degrees * (np.log(constant) + measured / constant)).sum()
    if not _are_sparse_counts(responses) and loss_of_constant <= loss:
        variance = _of_averages(counts, np.full(len(counts), constant), measured)
        return _SiteNoise(False, fano, mean_rate, rate_variance), variance
    return site, variance


def _of_averages(counts: np.ndarray, of_trials: np.ndarray, measured: np.ndarray) -> np.ndarray:
    """Noise variance of averages: of the measured variances where there are any, else modelled."""
    variance = np.where(counts > 0, of_trials, np.nan)
    variance[counts >= 2] = measured
    result: np.ndarray = variance / np.maximum(counts, 1)
    return result


def _are_sparse_counts(responses: np.ndarray) -> bool:
    """Whether responses that are not below 0 are few whole counts, in any unit such as spikes/s."""
    positive = responses[responses > 0]
    in_spikes = responses / positive.min()
    if in_spikes.mean() >= _FEW_SPIKES:
        return False
    return bool((np.abs(in_spikes - np.rint(in_spikes)) < 1e-3).all())
