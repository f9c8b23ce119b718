"""The simulated sites: a non-linear model of V4 and IT whose truth is known.

V4-like sites see a window of the image through Gabor energy (Adelson & Bergen 1985) with divisive
normalisation (Heeger 1992); each multiplies the energies of two orientations at two places (a
conjunction, as of a curve) and passes the product through a power law. IT-like sites are built on
the latent variables of the image: a sparse preference for categories times tuning to place, size
and pose, plus a small V4-like drive, rectified.
"""

from collections.abc import Sequence

import numpy as np
import scipy.fft

from nrp_onnx.recordings.simulation.stimuli import CATEGORIES, Latents

N_V4, N_IT = 88, 168
#: Mean spike count of a site for a blank grey stimulus, in the window of 100 ms.
BLANK_COUNT = 4.0
#: Variance of the spike counts over their mean.
FANO_FACTOR = 1.3
_ORIENTATIONS = 6
_WAVELENGTHS = (6.0, 12.0)
_GRID = 12


def gabor_energy(images: np.ndarray) -> np.ndarray:
    """Normalised Gabor energy, float32 (n_images, wavelengths x orientations, GRID, GRID).

    Args:
        images: luminance from 0 to 1, float32 (n_images, pixels, pixels).
    """
    n, pixels, _ = images.shape
    centred = images - images.mean(axis=(1, 2), keepdims=True)
    spectra = scipy.fft.fft2(centred, workers=2)
    fy, fx = np.fft.fftfreq(pixels)[:, None], np.fft.fftfreq(pixels)[None, :]
    maps = []
    for wavelength in _WAVELENGTHS:
        for angle in np.pi * np.arange(_ORIENTATIONS) / _ORIENTATIONS:
            # A Gaussian on one side of the spectrum gives the two phases as one complex filter.
            distance = (fx - np.cos(angle) / wavelength) ** 2 + (fy - np.sin(angle) / wavelength) ** 2
            response = np.exp(-distance * wavelength**2 * 2).astype(np.float32)
            energy = np.abs(scipy.fft.ifft2(spectra * response, workers=2)) ** 2
            block = pixels // _GRID
            maps.append(energy.reshape(n, _GRID, block, _GRID, block).mean(axis=(2, 4)))
    energies = np.stack(maps, axis=1)
    pool = energies.mean(axis=1, keepdims=True)
    normalised: np.ndarray = np.sqrt(energies / (pool + pool.mean()))
    return normalised.astype(np.float32)


def v4_drive(energy: np.ndarray, n_sites: int, rng: np.random.Generator) -> np.ndarray:
    """Drive of V4-like sites, float64 (n_images, n_sites), not negative."""
    n_maps = energy.shape[1]
    grid = np.arange(_GRID)
    drives = []
    for _ in range(n_sites):
        centre, width = rng.uniform(2, _GRID - 3, 2), rng.uniform(1.2, 2.5)
        parts = []
        for _ in range(2):
            y, x = centre + rng.uniform(-1.5, 1.5, 2)
            window = np.exp(-((grid[:, None] - y) ** 2 + (grid - x) ** 2) / (2 * width**2))
            orientation = np.zeros(n_maps)
            orientation[rng.choice(n_maps, 2, replace=False)] = 1.0, 0.5
            parts.append(np.einsum("nmyx,m,yx->n", energy, orientation, window / window.sum(), optimize=True))
        drives.append((parts[0] * parts[1]) ** rng.uniform(0.8, 1.4))
    return np.stack(drives, axis=1)


def it_drive(
    latents: Sequence[Latents], v4: np.ndarray, n_sites: int, rng: np.random.Generator
) -> np.ndarray:
    """Drive of IT-like sites, float64 (n_images, n_sites), not negative."""
    category = np.array([row.category for row in latents])
    place = np.array([(row.x, row.y) for row in latents])
    size = np.array([row.size for row in latents])
    pose = np.array([row.rotation for row in latents])
    early = v4 / v4.mean(axis=0)
    drives = []
    for _ in range(n_sites):
        preference = rng.gamma(0.5, 1.0, len(CATEGORIES))
        centre, spread = rng.uniform(-0.3, 0.3, 2), rng.uniform(0.4, 0.9)
        tuned = np.exp(-((place - centre) ** 2).sum(axis=1) / (2 * spread**2))
        tuned *= 1 / (1 + np.exp(-(size - rng.uniform(0.3, 0.5)) / 0.08))
        tuned *= 1 + rng.uniform(0, 0.7) * np.cos(2 * (pose - rng.uniform(-np.pi, np.pi)))
        low = early[:, rng.integers(early.shape[1])]
        drives.append(np.maximum(preference[category] * tuned + 0.15 * (low - 1), 0))
    return np.stack(drives, axis=1)


def expected_counts(drive: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Expected spike counts in 100 ms: the blank rate plus the drive, 3 to 8 spikes in its spread."""
    gain = rng.uniform(3.0, 8.0, drive.shape[1])
    return BLANK_COUNT + gain * drive / drive.std(axis=0)


def draw_counts(expected: np.ndarray, repetitions: int, rng: np.random.Generator) -> np.ndarray:
    """Spike counts (repetitions, n_images, n_sites): Poisson with a gamma-distributed rate.

    Their mean is ``expected`` and their variance `FANO_FACTOR` times it.
    """
    scale = FANO_FACTOR - 1
    rates = rng.gamma(expected / scale, scale, (repetitions, *expected.shape))
    return rng.poisson(rates)
