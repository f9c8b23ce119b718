"""Kernel features of many images from a sample of them: the Nystroem method.

Williams & Seeger (2001), "Using the Nystroem method to speed up kernel machines": with the kernel k of all
images and m landmarks, drawn from the training images, the features k(x, landmarks) K_mm^(-1/2) have
inner products that are those of the kernel on the landmarks, and close to it elsewhere. Ridge regression
on them costs n m^2 in place of n^3; where all training images are landmarks it is exact.
"""

from dataclasses import dataclass

import numpy as np

from nrp_onnx.predictor.baselines import arc_cosine_of
from nrp_onnx.predictor.image_products import eigenvectors

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
    """Features of all images, and how they come from kernels with the landmarks.

    Attributes:
        features: float32 (n_images, r).
        whitening: K_mm^(-1/2) on its range, float64 (m, r).
    """

    features: np.ndarray
    whitening: np.ndarray

    @classmethod
    def of(cls, kernels: np.ndarray, landmarks: np.ndarray) -> "KernelFeatures":
        """From kernels with the landmarks.

        Args:
            kernels: float32 (n_images, m).
            landmarks: places of the m landmarks among the images.
        """
        values, vectors = eigenvectors(kernels[landmarks].astype(np.float64))
        whitening = vectors / np.sqrt(values)
        features = np.empty((len(kernels), len(values)), np.float32)
        for start in range(0, len(kernels), _IMAGES_A_BLOCK):
            rows = slice(start, start + _IMAGES_A_BLOCK)
            features[rows] = kernels[rows].astype(np.float64) @ whitening
        return cls(features, whitening)


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
