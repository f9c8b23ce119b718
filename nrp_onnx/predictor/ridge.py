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
    """For each site the alpha of least leave-one-out error, float64 (n_sites,)."""
    grid = ALPHAS * spectrum.squares.sum() / len(y)
    chosen: np.ndarray = grid[leave_one_out_errors(spectrum, y, grid).argmin(axis=0)]
    return chosen


def leave_one_out_errors(spectrum: Spectrum, y: np.ndarray, alphas: np.ndarray) -> np.ndarray:
    """Mean square error of each site's responses, each predicted without its own image; exact.

    Ridge with an intercept is a linear smoother y^ = H y with H = 1/n + U diag(s^2 / (s^2 + a)) U^T,
    and the residual without image i is (y - y^)_i / (1 - H_ii). With g = a / (s^2 + a), both are sums
    over g, so that nothing cancels at small alphas: y - y^ = U g U^T y + y0 and 1 - H = U^2 g + h0,
    y0 and h0 being what lies outside the span of U. The products with U, one for each alpha, are
    float32: alphas are compared, and the predictions do not come from here.

    Args:
        alphas: float64 (n_alphas,), in the units of ``spectrum.squares``.

    Returns:
        float64 (n_alphas, n_sites).
    """
    left = spectrum.left
    moved = y - y.mean(axis=0)
    turned = left.T @ moved
    outside, leverage = moved - left @ turned, left**2
    room = 1 - 1 / len(y) - leverage.sum(axis=1)
    if left.shape[1] == len(y) - 1:  # the training images span everything around their mean
        outside, room = np.zeros_like(outside), np.zeros_like(room)
    errors = np.empty((len(alphas), y.shape[1]))
    left_32 = left.astype(np.float32)
    for place, alpha in enumerate(alphas):
        rest = alpha / (spectrum.squares + alpha)
        residuals = outside + left_32 @ (rest[:, None] * turned).astype(np.float32)
        residuals /= (room + leverage @ rest)[:, None]
        errors[place] = np.einsum("ij,ij->j", residuals, residuals) / len(y)
    return errors
