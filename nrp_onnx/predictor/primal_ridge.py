"""Ridge regression on features (the primal form): time and memory are linear in the number of images.

The dual form works on the n x n inner products of images, which is less for few images of many features
and gives the same predictions (Saunders, Gammerman & Vovk 1998). With n images of D features the primal
form takes n D^2 operations for the products of features, D^3 for their eigendecomposition, which serves
all sites and alphas, and n D for each site.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy.linalg import blas

from nrp_onnx.predictor.image_products import Spectrum, eigenvectors
from nrp_onnx.predictor.ridge import Responses, solve_ridge

#: Images whose products are added at a time.
_IMAGES_A_BLOCK = 4096


@dataclass(frozen=True, eq=False)
class PrimalRidge:
    """Rates = (features - centre) weights + mean.

    Attributes:
        weights: float64 (D, n_sites).
        mean: of the responses, float64 (n_sites,).
        held_out: leave-one-out rates of the training images, float64 (n_train, n_sites).
    """

    weights: np.ndarray
    mean: np.ndarray
    held_out: np.ndarray


@dataclass(frozen=True, eq=False)
class Features:
    """The singular value decomposition U S V^T of centred features of the training images.

    Attributes:
        centre: mean of the training images, float64 (D,).
        right: V, float64 (D, r).
        spectrum: U, float32 (n_train, r), and S^2.
    """

    centre: np.ndarray
    right: np.ndarray
    spectrum: Spectrum

    @classmethod
    def of(cls, features: np.ndarray, train: np.ndarray) -> "Features":
        """Decompose the features of the training images.

        Args:
            features: float32 (n_images, D).
            train: places of the training images.
        """
        centre, products = sums_of_features(features, train)
        squares, right = eigenvectors(products)
        turn = (right / np.sqrt(squares)).astype(np.float32)
        left = np.empty((len(train), len(squares)), np.float32)
        for rows, block in _blocks(features, train, centre):
            left[rows] = block.astype(np.float32) @ turn
        return cls(centre, right, Spectrum(left, squares))

    def ridge(self, responses: Responses) -> PrimalRidge:
        """Fit ridge regression, each site with the alpha of its least leave-one-out error."""
        solved = solve_ridge(self.spectrum, responses)
        weights = self.right @ (np.sqrt(self.spectrum.squares)[:, None] * solved.turned)
        return PrimalRidge(weights, responses.mean, solved.held_out)

    def moved(self, features: np.ndarray) -> np.ndarray:
        """Features of new images around the mean of the training images, float64 (n_new, D)."""
        found: np.ndarray = features.astype(np.float64) - self.centre
        return found


def sums_of_features(features: np.ndarray, train: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean of the training images, float64 (D,), and products of features around it, float64 (D, D).

    Both are sums over images, which are taken in blocks.
    """
    centre = np.zeros(features.shape[1])
    for start in range(0, len(train), _IMAGES_A_BLOCK):
        some = train[start : start + _IMAGES_A_BLOCK]
        centre += features[some].sum(axis=0, dtype=np.float64)
    centre /= len(train)
    products = np.zeros((len(centre), len(centre)), order="F")
    for _, block in _blocks(features, train, centre):
        # The upper triangle alone: half of the operations.
        products = blas.dsyrk(1.0, block.T, beta=1.0, c=products, overwrite_c=True)
    upper = np.triu(products, 1)
    return centre, np.triu(products) + upper.T


def _blocks(
    features: np.ndarray, train: np.ndarray, centre: np.ndarray
) -> Iterator[tuple[slice, np.ndarray]]:
    """Rows among the training images, and their features around the mean, float64."""
    for start in range(0, len(train), _IMAGES_A_BLOCK):
        rows = slice(start, start + _IMAGES_A_BLOCK)
        yield rows, features[train[rows]] - centre
