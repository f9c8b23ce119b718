"""Kernel features of many images from a sample of them: the Nystroem method.

Williams & Seeger (2001), "Using the Nystroem method to speed up kernel machines": with the kernel k of all
images and m landmarks, drawn from the training images, the features k(x, landmarks) K_mm^(-1/2) have
inner products that are those of the kernel on the landmarks, and close to it elsewhere. Ridge regression
on them costs n m^2 in place of n^3; where all training images are landmarks it is exact.
"""

from dataclasses import dataclass

import numpy as np

from nrp_onnx.predictor.baselines import arc_cosine_of
from nrp_onnx.predictor.image_products import Spectrum, eigenvectors
from nrp_onnx.predictor.primal_ridge import PrimalRidge, sums_of_features
from nrp_onnx.predictor.ridge import Responses, solve_ridge

#: Images whose kernels are computed at a time.
_IMAGES_A_BLOCK = 2048
#: Of the landmarks that are drawn.
_SEED = 0


def draw_landmarks(train: np.ndarray, n: int) -> np.ndarray:
    """Places of n training images at random, in their order; all of them where they are no more."""
    if n >= len(train):
        return train
    return np.sort(np.random.default_rng(_SEED).permutation(train)[:n])


@dataclass(frozen=True, eq=False)
class KernelFeatures:
    """The singular value decomposition U S V^T of the centred kernel features of the training images.

    With C the kernels of the training images with the landmarks around their mean, the features are C W.
    They are not formed: their products are W^T (C^T C) W, and U is C W V / S.

    Attributes:
        whitening: W = K_mm^(-1/2) on its range, float64 (m, r).
        centre: mean of the kernels of the training images, float64 (m,).
        turn: W V, float64 (m, r).
        spectrum: U, float32 (n_train, r), and S^2.
    """

    whitening: np.ndarray
    centre: np.ndarray
    turn: np.ndarray
    spectrum: Spectrum

    @classmethod
    def of(
        cls,
        kernels: np.ndarray,
        landmarks: np.ndarray,
        train: np.ndarray,
        whitening: np.ndarray | None = None,
    ) -> "KernelFeatures":
        """Decompose the features of the training images.

        Args:
            kernels: float32 (n_images, m).
            landmarks: places of the m landmarks among the images.
            train: places of the training images.
            whitening: of the same landmarks, where it is known.
        """
        if whitening is None:
            values, vectors = eigenvectors(kernels[landmarks].astype(np.float64))
            whitening = vectors / np.sqrt(values)
        centre, products = sums_of_features(kernels, train)
        squares, right = eigenvectors(whitening.T @ products @ whitening)
        turn = whitening @ right
        to_left = turn / np.sqrt(squares)
        left = np.empty((len(train), len(squares)), np.float32)
        for start in range(0, len(train), _IMAGES_A_BLOCK):
            rows = slice(start, start + _IMAGES_A_BLOCK)
            # In float64: what is left of nearly equal kernels, divided by small singular values.
            left[rows] = (kernels[train[rows]] - centre) @ to_left
        return cls(whitening, centre, turn, Spectrum(left, squares))

    def ridge(self, responses: Responses) -> PrimalRidge:
        """Fit ridge regression; its weights are of the kernels with the landmarks, (m, n_sites)."""
        solved = solve_ridge(self.spectrum, responses)
        weights = self.turn @ (np.sqrt(self.spectrum.squares)[:, None] * solved.turned)
        return PrimalRidge(weights, responses.mean, solved.held_out)

    def rates(self, kernels: np.ndarray, ridge: PrimalRidge) -> np.ndarray:
        """Rates of images from their kernels with the landmarks, float64 (n_images, n_sites)."""
        found: np.ndarray = (kernels - self.centre) @ ridge.weights + ridge.mean
        return found


def arc_cosine_kernels(features: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
    """Arc-cosine kernels of images with landmarks, around the mean of the landmarks: float32 (n, m).

    Args:
        features: float32 (n_images, D).
        landmarks: places of the m landmarks.
    """
    centre = features[landmarks].mean(axis=0, dtype=np.float64)
    known = features[landmarks] - centre
    lengths = np.sqrt(np.einsum("ij,ij->i", known, known))
    kernels = np.empty((len(features), len(landmarks)), np.float32)
    for start in range(0, len(features), _IMAGES_A_BLOCK):
        rows = slice(start, start + _IMAGES_A_BLOCK)
        block = features[rows] - centre
        own = np.sqrt(np.einsum("ij,ij->i", block, block))
        kernels[rows] = arc_cosine_of(block @ known.T, np.outer(own, lengths))
    return kernels
