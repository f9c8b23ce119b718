"""Tests of single sites, and what many tests at once ask for."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from nrp_onnx.bootstrap import Interval
from nrp_onnx.statistics import SiteCounts

#: The false discovery rate at which a site counts.
Q = 0.05
_FEWEST = 3


@dataclass(frozen=True, eq=False)
class SiteTests:
    """A paired test of each site.

    Attributes:
        difference: of the mean absolute errors, float64 (n_sites,); negative where the first errs less.
        p: two-sided, float64 (n_sites,); NaN where it cannot be computed.
        q: the least false discovery rate at which the site counts, float64 (n_sites,).
    """

    difference: np.ndarray
    p: np.ndarray
    q: np.ndarray

    @property
    def counts(self) -> SiteCounts:
        """At how many sites the first predictor is better and worse, at q < 0.05."""
        found = self.q < Q  # NaN is not
        return SiteCounts(
            better=int((found & (self.difference < 0)).sum()),
            worse=int((found & (self.difference > 0)).sum()),
        )


def site_tests(errors: np.ndarray, other: np.ndarray) -> SiteTests:
    """Student's paired t-test of the absolute errors at each site, over images.

    The false discovery rate over the sites is controlled by Benjamini & Hochberg (1995). The test takes
    images as independent; it says nothing of other sites, and the interval over sites nothing of one.

    Args:
        errors, other: float arrays (n_images, n_sites), predicted - recorded; NaN = not recorded.

    Returns:
        NaN for a site with fewer than three images; p is 1 where both err alike on every image.
    """
    paired = np.abs(errors) - np.abs(other)
    n = (~np.isnan(paired)).sum(axis=0)
    enough = n >= _FEWEST
    difference, p, q = (np.full(paired.shape[1], np.nan) for _ in range(3))
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.nansum(paired, axis=0) / n
        square = np.nansum((paired - mean) ** 2, axis=0) / (n - 1)
        t = mean / np.sqrt(square / n)
    difference[n > 0] = mean[n > 0]
    found = 2 * stats.t.sf(np.abs(t), np.maximum(n - 1, 1))
    found[(square == 0) & (mean == 0)] = 1.0
    p[enough] = found[enough]
    if enough.any():
        q[enough] = stats.false_discovery_control(p[enough], method="bh")
    return SiteTests(difference, p, q)


def bootstrap_p(resampled: np.ndarray) -> float:
    """Two-sided p of a difference of 0, from its values in each resample (without NaN).

    Twice the share of resamples on the rarer side of 0 (that on which the interval ends touch it),
    counted with one more, so that it is never 0: Davison & Hinkley 1997, section 4.4.
    """
    n = len(resampled)
    least = min((resampled <= 0).sum(), (resampled >= 0).sum())
    return float(min(1.0, 2 * (1 + least) / (1 + n)))


def holm(p: Sequence[float]) -> list[float]:
    """Adjusted p by Holm (1979): below 0.05, chances of one false claim among all are below 5 %."""
    values = np.asarray(p, float)
    order = np.argsort(values, kind="stable")
    stepped = np.maximum.accumulate(values[order] * np.arange(len(values), 0, -1))
    adjusted = np.empty_like(values)
    adjusted[order] = np.minimum(stepped, 1.0)
    return [float(value) for value in adjusted]


def simultaneous_intervals(
    values: Sequence[float], resampled: np.ndarray, level: float = 0.95
) -> list[Interval]:
    """Intervals that hold all at once with probability ``level``: by the bootstrapped maximum.

    Each is value +- c s, with s the standard deviation over resamples and c the quantile of the largest
    |deviation| / s among all values of a resample (max-t: Westfall & Young 1993).

    Args:
        values: one each.
        resampled: float64 (n_values, n_resamples), without NaN.
    """
    spread = resampled.std(axis=1)
    moved = np.abs(resampled - resampled.mean(axis=1, keepdims=True))
    apart = np.divide(moved, spread[:, None], out=np.zeros_like(moved), where=spread[:, None] > 0)
    c = float(np.quantile(apart.max(axis=0), level))
    return [
        (float(value - c * s), float(value + c * s))
        for value, s in zip(values, spread, strict=True)
    ]
