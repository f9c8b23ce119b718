"""The rights that every predictor has alike: a variance-stabilised response, and a calibration a site.

Spike counts are skewed and their variance grows with their mean. The NRP-error is an absolute error,
which is least for the median, while least squares aims at the mean. So a predictor of squares loses
against one of absolute errors for a reason that has nothing to do with the map from activations. Here
each may predict square roots of counts (Bartlett 1936), and each is turned by a line a site that has
the least absolute deviations (Koenker & Bassett 1978, at the median).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nrp_onnx.threads import map_on_cores

#: Sites with fewer held-out rates than this are not calibrated.
FEWEST = 20
#: Steps of the reweighted least squares, and the least deviation that is divided by, in z.
_STEPS, _SMALLEST = 60, 1e-4
#: Rates whose lines are found at a time: more leave the cache, fewer make threads wait.
_ELEMENTS = 2**17


@dataclass(frozen=True, eq=False)
class SquareRoot:
    """Scaled square roots of recorded rates, and back: (sqrt(rate) - offset) / scale, per site.

    Attributes:
        offset, scale: of the square roots of the training responses, float64 (n_sites,).
    """

    offset: np.ndarray
    scale: np.ndarray

    @classmethod
    def of(cls, rates: np.ndarray) -> "SquareRoot | None":
        """From training responses (n_train, n_sites), NaN = missing; None where one is negative."""
        if np.nanmin(rates) < 0:
            return None
        roots = np.sqrt(rates)
        deviation = np.nanstd(roots, axis=0)
        return cls(np.nanmean(roots, axis=0), np.where(deviation > 0, deviation, 1.0))

    def of_sites(self, sites: np.ndarray) -> "SquareRoot":
        """The same of some sites."""
        return SquareRoot(self.offset[sites], self.scale[sites])

    def forward(self, rates: np.ndarray) -> np.ndarray:
        """Scaled roots of recorded rates; a negative one, outside the training images, counts as 0."""
        scaled: np.ndarray = (np.sqrt(np.maximum(rates, 0)) - self.offset) / self.scale
        return scaled

    def back(self, scaled: np.ndarray) -> np.ndarray:
        """Recorded rates from scaled roots; a root below 0 is 0."""
        rates: np.ndarray = np.maximum(scaled * self.scale + self.offset, 0) ** 2
        return rates


@dataclass(frozen=True, eq=False)
class Line:
    """Calibrated = intercept + slope * predicted, at each site; the slope is 0 or more."""

    intercept: np.ndarray
    slope: np.ndarray

    def __call__(self, predicted: np.ndarray) -> np.ndarray:
        """Calibrated rates, float64 (n_images, n_sites)."""
        rates: np.ndarray = self.intercept + self.slope * predicted
        return rates


def fit_lines(held_out: np.ndarray, recorded: np.ndarray) -> Line:
    """The line of least absolute deviations at each site, by reweighted least squares.

    A slope below 0 would turn a predictor round that errs by chance on these images; there the line
    is the median.

    Args:
        held_out: predictions of training images that were left out, float64 (n, n_sites); NaN = none.
        recorded: their rates, NaN = missing. Sites with fewer than 20 of both are left alone.
    """
    there = ~(np.isnan(held_out) | np.isnan(recorded))
    n, n_sites = recorded.shape
    n_blocks = -(-n_sites // max(1, _ELEMENTS // max(n, 1)))
    blocks = np.array_split(np.arange(n_sites), n_blocks) if n_sites else []

    def fit(sites: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return _reweighted(*(x.T[sites] for x in (held_out, recorded, there)))

    fitted = map_on_cores(fit, blocks)
    intercept = np.concatenate([one for one, _ in fitted] or [np.zeros(0)])
    slope = np.concatenate([other for _, other in fitted] or [np.ones(0)])
    median = _medians(recorded, there)
    intercept = np.where(slope == 0, median, intercept)
    few = there.sum(axis=0) < FEWEST
    return Line(np.where(few, 0.0, intercept), np.where(few, 1.0, slope))


def _reweighted(
    held_out: np.ndarray, recorded: np.ndarray, there: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Intercepts and slopes of some sites; the arguments are (n_sites, n)."""
    x, y = np.where(there, held_out, 0.0), np.where(there, recorded, 0.0)
    known = there.astype(float)
    intercept, slope = np.zeros(len(x)), np.ones(len(x))
    weights, moved = np.empty_like(x), np.empty_like(x)
    for _ in range(_STEPS):
        np.multiply(x, slope[:, None], out=weights)
        weights += intercept[:, None]
        weights -= y
        np.abs(weights, out=weights)
        np.maximum(weights, _SMALLEST, out=weights)
        np.divide(known, weights, out=weights)
        total = np.maximum(weights.sum(axis=1), np.finfo(float).tiny)
        mean_x, mean_y = (np.einsum("ij,ij->i", weights, z) / total for z in (x, y))
        np.subtract(x, mean_x[:, None], out=moved)
        weights *= moved
        spread = np.einsum("ij,ij->i", weights, moved)
        along = np.einsum("ij,ij->i", weights, y) - mean_y * weights.sum(axis=1)
        # Held-out means differ by rounding and by what is left out; that is no direction.
        varies = spread > 1e-9 * total * (1 + mean_x**2)
        slope = np.where(varies, np.maximum(along / np.where(varies, spread, 1), 0), 0)
        intercept = mean_y - slope * mean_x
    return intercept, slope


def _medians(recorded: np.ndarray, there: np.ndarray) -> np.ndarray:
    found = np.zeros(recorded.shape[1])
    known = there.any(axis=0)
    found[known] = np.nanmedian(np.where(there, recorded, np.nan)[:, known], axis=0)
    return found


@dataclass(frozen=True, eq=False)
class Rates:
    """Rates of one predictor, in the targets' units.

    Attributes:
        predicted: of the new images, float64 (n_new, n_sites).
        held_out: of the training images, when they were left out; NaN where that was not done.
    """

    predicted: np.ndarray
    held_out: np.ndarray


def calibrate(variants: Sequence[Rates], recorded: np.ndarray) -> np.ndarray:
    """Calibrated rates of the new images: each site by the variant that has the least held-out error.

    Args:
        variants: of one predictor: of the responses as they are, and turned back from their roots.
        recorded: rates of the training images, float64 (n_train, n_sites), NaN = missing.
    """
    lines = [fit_lines(variant.held_out, recorded) for variant in variants]
    errors = np.stack(
        [
            _mean_errors(line(variant.held_out) - recorded)
            for line, variant in zip(lines, variants, strict=True)
        ]
    )
    best = errors.argmin(axis=0)
    turned = np.stack([line(v.predicted) for line, v in zip(lines, variants, strict=True)])
    found: np.ndarray = np.take_along_axis(turned, best[None, None], axis=0)[0]
    return found


def _mean_errors(differences: np.ndarray) -> np.ndarray:
    there = ~np.isnan(differences)
    sums = np.abs(np.where(there, differences, 0)).sum(axis=0)
    found: np.ndarray = sums / np.maximum(there.sum(axis=0), 1)
    return found
