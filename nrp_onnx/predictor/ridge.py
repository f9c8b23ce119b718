"""Ridge regression of all sites from one spectrum; alpha per site by leave-one-out."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from nrp_onnx.predictor.image_products import Spectrum


def response_patterns(there: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Places of images, and of the sites that have responses to just these.

    Args:
        there: bool (n_images, n_sites).
    """
    sites_of: dict[bytes, list[int]] = {}
    for site, packed in enumerate(np.packbits(there, axis=0).T):
        sites_of.setdefault(packed.tobytes(), []).append(site)
    for sites in sites_of.values():
        yield np.flatnonzero(there[:, sites[0]]), np.array(sites)


#: Times the mean square length of a training image, so that they fit any scale.
ALPHAS = np.logspace(-4, 4, 17)
#: Images whose directions are squared at a time.
_ROWS = 4096


@dataclass(frozen=True, eq=False)
class Responses:
    """Training responses, centred and projected on the directions U of a spectrum.

    Attributes:
        moved: the responses less their mean, float64 (n_train, n_sites).
        turned: U^T moved, float64 (r, n_sites).
        mean: float64 (n_sites,).
    """

    moved: np.ndarray
    turned: np.ndarray
    mean: np.ndarray

    @classmethod
    def of(cls, y: np.ndarray, spectrum: Spectrum) -> "Responses":
        """From responses (n_train, n_sites), none missing."""
        mean = y.mean(axis=0)
        moved = y - mean
        left = spectrum.left
        # Directions of many images are float32; a block of them at a time is made float64.
        starts = range(0, len(left), _ROWS)
        parts = (left[k : k + _ROWS].T.astype(np.float64) @ moved[k : k + _ROWS] for k in starts)
        return cls(moved, sum(parts, np.zeros((left.shape[1], moved.shape[1]))), mean)


@dataclass(frozen=True, eq=False)
class Ridge:
    """Ridge regression of all sites on the inner products of images.

    Attributes:
        weights: of the products with the training images, float64 (n_train, n_sites).
        mean: of the responses, float64 (n_sites,).
        held_out: of each training image the rates of the fit to all others, float64 (n_train, n_sites).
        errors: mean square error of these, float64 (n_sites,).
    """

    weights: np.ndarray
    mean: np.ndarray
    held_out: np.ndarray
    errors: np.ndarray

    def predict(self, products: np.ndarray) -> np.ndarray:
        """Rates, float64 (n_new, n_sites).

        Args:
            products: inner products of new images with the training images, around the mean of the
                latter, float64 (n_new, n_train).
        """
        rates: np.ndarray = products @ self.weights + self.mean
        return rates


@dataclass(frozen=True, eq=False)
class Solution:
    """Ridge regression of all sites in the directions of a spectrum.

    Attributes:
        turned: U^T y / (s^2 + alpha), float64 (r, n_sites): U times it are weights of the products
            with the training images, V S times it weights of features.
        held_out, errors: see `Ridge`.
    """

    turned: np.ndarray
    held_out: np.ndarray
    errors: np.ndarray


def fit_ridge(spectrum: Spectrum, responses: Responses) -> Ridge:
    """Fit ridge regression, each site with the alpha of its least leave-one-out error."""
    solved = solve_ridge(spectrum, responses)
    return Ridge(spectrum.left @ solved.turned, responses.mean, solved.held_out, solved.errors)


def solve_ridge(spectrum: Spectrum, responses: Responses) -> Solution:
    """Ridge regression, each site with the alpha of its least leave-one-out error."""
    left_out = _LeaveOneOut(spectrum, responses)
    alphas, errors = left_out.choose_alphas()
    turned = responses.turned / (spectrum.squares[:, None] + alphas)
    residuals = np.empty(responses.moved.shape)
    for alpha in np.unique(alphas):
        sites = np.flatnonzero(alphas == alpha)
        residuals[:, sites] = left_out.residuals(alpha, sites)
    held_out = responses.moved + responses.mean - residuals
    return Solution(turned, held_out, errors)


def choose_alphas(spectrum: Spectrum, responses: Responses) -> tuple[np.ndarray, np.ndarray]:
    """For each site the alpha of least leave-one-out error, and this error: float64 (n_sites,) each."""
    return _LeaveOneOut(spectrum, responses).choose_alphas()


class _LeaveOneOut:
    """The exact mean square leave-one-out error of each site.

    Ridge with an intercept is a linear smoother y^ = H y with H = 1/n + U diag(s^2 / (s^2 + a)) U^T,
    and the residual without image i is (y - y^)_i / (1 - H_ii). With g = a / (s^2 + a), both are sums
    of positive terms, so nothing cancels at small alphas: y - y^ = U g U^T y + y0 and 1 - H = U^2 g + h0,
    where y0 and h0 are the parts outside the span of U. The errors only serve to compare alphas, so
    float32 is enough.
    """

    def __init__(self, spectrum: Spectrum, responses: Responses) -> None:
        n, rank = spectrum.left.shape
        self._left = spectrum.left.astype(np.float32, copy=False)
        self._squares = spectrum.squares
        self._turned = responses.turned.astype(np.float32)
        if rank == n - 1:  # the training images span everything around their mean
            self._outside, self._room = np.zeros(responses.moved.shape, np.float32), np.zeros(n)
        else:
            inside = self._left @ self._turned
            self._outside = responses.moved.astype(np.float32) - inside
            self._room = 1 - 1 / n - np.einsum("ij,ij->i", spectrum.left, spectrum.left)

    def choose_alphas(self) -> tuple[np.ndarray, np.ndarray]:
        """For each site the alpha of least error, and this error: float64 (n_sites,) each.

        Generalised cross-validation (Golub, Heath & Wahba 1979) replaces each leverage by their mean,
        which is fast. The search starts at its choice; each site then moves along `ALPHAS` to smaller
        errors, until both neighbours have a larger leave-one-out error.
        """
        n, n_sites = len(self._left), self._turned.shape[1]
        grid = ALPHAS * self._squares.sum() / n
        errors, sites = np.full((len(grid), n_sites), np.inf), np.arange(n_sites)
        known = np.zeros(errors.shape, bool)
        best = self.generalised(grid).argmin(axis=0)
        while True:
            wanted = np.zeros(errors.shape, bool)
            for step in (-1, 0, 1):
                wanted[np.clip(best + step, 0, len(grid) - 1), sites] = True
            wanted &= ~known
            if not wanted.any():
                return grid[best], errors[best, sites]
            for place in np.flatnonzero(wanted.any(axis=1)):
                some = np.flatnonzero(wanted[place])
                errors[place, some] = self.errors(grid[place], some)
            known |= wanted
            best = errors.argmin(axis=0)

    def residuals(self, alpha: float, sites: np.ndarray) -> np.ndarray:
        """Responses less held-out rates, float32 (n, len(sites)); ``alpha`` as ``spectrum.squares``."""
        rest = (alpha / (self._squares + alpha)).astype(np.float32)
        residuals = self._outside[:, sites] + self._left @ (rest[:, None] * self._turned[:, sites])
        left_out: np.ndarray = residuals / (self._room + self._leverages(rest))[:, None]
        return left_out

    def _leverages(self, rest: np.ndarray) -> np.ndarray:
        """Of each image, the sum of U^2 times ``rest``: float32 (n,)."""
        starts = range(0, len(self._left), _ROWS)
        parts = [np.square(self._left[start : start + _ROWS]) @ rest for start in starts]
        found: np.ndarray = np.concatenate(parts)
        return found

    def errors(self, alpha: float, sites: np.ndarray) -> np.ndarray:
        """Mean square residuals of some sites, float64 (len(sites),)."""
        residuals = self.residuals(alpha, sites)
        errors: np.ndarray = np.einsum("ij,ij->j", residuals, residuals, dtype=np.float64)
        return errors / len(residuals)

    def generalised(self, alphas: np.ndarray) -> np.ndarray:
        """Errors of all sites with the mean of 1 - H_ii for every image: (n_alphas, n_sites)."""
        rest = alphas[:, None] / (self._squares + alphas[:, None])
        squares = rest**2 @ self._turned**2 + np.einsum("ij,ij->j", self._outside, self._outside)
        room = (self._room.sum() + rest.sum(axis=1)) / len(self._outside)
        errors: np.ndarray = squares / room[:, None] ** 2 / len(self._outside)
        return errors
