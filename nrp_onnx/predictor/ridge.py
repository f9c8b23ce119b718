"""Ridge regression of all sites at once from one spectrum; alpha per site by leave-one-out."""

from dataclasses import dataclass

import numpy as np

from nrp_onnx.predictor.joined_span import Spectrum

#: Times the mean square length of a training image, so that they fit any scale.
ALPHAS = np.logspace(-4, 4, 17)


@dataclass(frozen=True, eq=False)
class Ridge:
    """Ridge regression of all sites on a spectrum U S V^T.

    Attributes:
        turned: float64 (r, n_sites); U times this are the weights of the training images, and S
            times this those of the directions V.
        mean: of the responses, float64 (n_sites,).
    """

    turned: np.ndarray
    mean: np.ndarray

    def predict(self, spectrum: Spectrum) -> np.ndarray:
        """Rates of the spectrum's new images, float64 (n_new, n_sites)."""
        rates: np.ndarray = (spectrum.new * np.sqrt(spectrum.squares)) @ self.turned + self.mean
        return rates


def fit_ridge(spectrum: Spectrum, y: np.ndarray) -> Ridge:
    """Ridge, each site at the alpha of least leave-one-out error.

    Args:
        y: float64 (n_train, n_sites).
    """
    alphas, mean = choose_alphas(spectrum, y), y.mean(axis=0)
    return Ridge(spectrum.left.T @ (y - mean) / (spectrum.squares[:, None] + alphas), mean)


def choose_alphas(spectrum: Spectrum, y: np.ndarray) -> np.ndarray:
    """For each site the alpha of least leave-one-out error, float64 (n_sites,).

    Generalised cross-validation (Golub, Heath & Wahba 1979), which puts the mean of all leverages for
    each, costs next to nothing and says where to look: from its choice on, each site goes down along
    `ALPHAS` until both neighbours have a larger leave-one-out error.
    """
    held_out = _LeaveOneOut(spectrum, y)
    grid = ALPHAS * spectrum.squares.sum() / len(y)
    errors, sites = np.full((len(grid), y.shape[1]), np.inf), np.arange(y.shape[1])
    known = np.zeros(errors.shape, bool)
    best = held_out.generalised(grid).argmin(axis=0)
    while True:
        wanted = np.zeros(errors.shape, bool)
        for step in (-1, 0, 1):
            wanted[np.clip(best + step, 0, len(grid) - 1), sites] = True
        wanted &= ~known
        if not wanted.any():
            chosen: np.ndarray = grid[best]
            return chosen
        for place in np.flatnonzero(wanted.any(axis=1)):
            some = np.flatnonzero(wanted[place])
            errors[place, some] = held_out.errors(grid[place], some)
        known |= wanted
        best = errors.argmin(axis=0)


class _LeaveOneOut:
    """Mean square error of each site's responses, each predicted without its own image; exact.

    Ridge with an intercept is a linear smoother y^ = H y with H = 1/n + U diag(s^2 / (s^2 + a)) U^T,
    and the residual without image i is (y - y^)_i / (1 - H_ii). With g = a / (s^2 + a), both are sums
    over g, so that nothing cancels at small alphas: y - y^ = U g U^T y + y0 and 1 - H = U^2 g + h0,
    y0 and h0 being what lies outside the span of U. The products with U, one for each alpha, are
    float32: alphas are compared, and the predictions do not come from here.

    Args:
        y: float64 (n_train, n_sites).
    """

    def __init__(self, spectrum: Spectrum, y: np.ndarray) -> None:
        left, moved = spectrum.left, y - y.mean(axis=0)
        self._squares, self._left_32 = spectrum.squares, left.astype(np.float32)
        self._turned = left.T @ moved
        self._outside, self._leverage = moved - left @ self._turned, left**2
        self._room = 1 - 1 / len(y) - self._leverage.sum(axis=1)
        if left.shape[1] == len(y) - 1:  # the training images span everything around their mean
            self._outside, self._room = np.zeros_like(moved), np.zeros(len(y))

    def errors(self, alpha: float, sites: np.ndarray) -> np.ndarray:
        """Of some sites, float64 (len(sites),); ``alpha`` is in the units of ``spectrum.squares``."""
        rest = alpha / (self._squares + alpha)
        turned = (rest[:, None] * self._turned[:, sites]).astype(np.float32)
        residuals = self._outside[:, sites] + self._left_32 @ turned
        residuals /= (self._room + self._leverage @ rest)[:, None]
        errors: np.ndarray = np.einsum("ij,ij->j", residuals, residuals) / len(residuals)
        return errors

    def generalised(self, alphas: np.ndarray) -> np.ndarray:
        """The same of all sites with the mean of 1 - H_ii for each image: (n_alphas, n_sites)."""
        rest = alphas[:, None] / (self._squares + alphas[:, None])
        squares = rest**2 @ self._turned**2 + np.einsum("ij,ij->j", self._outside, self._outside)
        room = (self._room.sum() + rest.sum(axis=1)) / len(self._outside)
        errors: np.ndarray = squares / room[:, None] ** 2 / len(self._outside)
        return errors
