"""Simulated sites whose truth is known: of V4 and IT, or of a known layer of a network.

V4-like sites see a window of the image through Gabor energy (Adelson & Bergen 1985) with divisive
normalisation (Heeger 1992). Each multiplies the energies of two orientations at two neighbouring
places, a conjunction as of a curve or a corner (Pasupathy & Connor 1999), is suppressed by a third,
and passes the rectified difference through a power law. IT-like sites are built on the latent
variables of the image: a sparse preference for categories times tuning to place, size and pose,
plus a small V4-like drive, rectified.

A site takes a handful of hidden units, each a rectified random view of the layer, multiplies two of
them, is driven by a third and suppressed by a fourth, and passes the rectified sum through a power
law, as the V4-like sites do with the Gabor energy. So its rate is a non-linear function of the layer
that no linear map of the layer gives, and its trials scatter as those of the other simulated sites.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import scipy.fft

from nrp_onnx.recordings.recordings import Recordings
from nrp_onnx.recordings.simulation import sites as model
from nrp_onnx.recordings.simulation.stimuli import OBJECT_NAMES, Latents

N_V4, N_IT = 88, 168
#: Variance of the spike counts over their mean.
FANO_FACTOR = 1.3
#: Trials of each stimulus.
REPETITIONS = 10
UNITS = "(spike count - mean count for a blank) / s.d. of the counts for a blank"
_ORIENTATIONS = 6
_WAVELENGTHS = (4.0, 8.0)  # pixels of the luminance
#: Side of the luminance images that the sites see.
LUMINANCE_PIXELS = 64
_GRID = 16
#: Energy at which a place is driven to half: that of a faint texture.
_SEMI_SATURATION = 1e-4


def gabor_energy(images: np.ndarray) -> np.ndarray:
    """Root of the normalised Gabor energy: zero for a blank image.

    Args:
        images: luminance from 0 to 1, float32 (n_images, side, side), side LUMINANCE_PIXELS.

    Returns:
        float32 array of shape (n_images, wavelengths x orientations, GRID, GRID).
    """
    n, block = len(images), LUMINANCE_PIXELS // _GRID
    spectra = scipy.fft.fft2(images - images.mean(axis=(1, 2), keepdims=True))
    fy, fx = np.fft.fftfreq(LUMINANCE_PIXELS)[:, None], np.fft.fftfreq(LUMINANCE_PIXELS)[None, :]
    maps = []
    for wavelength in _WAVELENGTHS:
        for angle in np.pi * np.arange(_ORIENTATIONS) / _ORIENTATIONS:
            # A Gaussian on one side of the spectrum gives the two phases as one complex filter.
            distance = np.hypot(fx - np.cos(angle) / wavelength, fy - np.sin(angle) / wavelength)
            passed = np.exp(-2 * (distance * wavelength) ** 2).astype(np.float32)
            phases = scipy.fft.ifft2(spectra * passed)
            energy = phases.real**2 + phases.imag**2
            maps.append(energy.reshape(n, _GRID, block, _GRID, block).mean(axis=(2, 4)))
    energies = np.stack(maps, axis=1)
    pool = energies.mean(axis=1, keepdims=True)
    root: np.ndarray = np.sqrt(energies / (pool + _SEMI_SATURATION))
    return root.astype(np.float32)


def v4_drive(energy: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Drive of the V4-like sites, float64 (n_images, N_V4), not negative.

    Args:
        energy: of `gabor_energy`.
    """
    n_maps = energy.shape[1]
    grid = np.arange(_GRID)
    windows = np.zeros((N_V4, 3, n_maps, _GRID, _GRID), np.float32)
    for site in windows:
        centre, width = rng.uniform(3, _GRID - 4, 2), rng.uniform(1.0, 2.5)
        for part, orientation in zip(site, rng.choice(n_maps, 3, replace=False), strict=True):
            y, x = centre + rng.uniform(-1.5, 1.5, 2)
            window = np.exp(-((grid[:, None] - y) ** 2 + (grid - x) ** 2) / (2 * width**2))
            part[orientation] = window / window.sum()
    seen = energy.reshape(len(energy), -1) @ windows.reshape(3 * N_V4, -1).T
    first, second, third = np.moveaxis(seen.astype(np.float64).reshape(-1, N_V4, 3), 2, 0)
    rectified = np.maximum(first * second - 0.3 * third, 0)
    drive: np.ndarray = rectified ** rng.uniform(0.6, 1.2, N_V4)
    return drive


def it_drive(latents: Sequence[Latents], v4: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Drive of the IT-like sites, float64 (n_images, N_IT), not negative.

    Args:
        latents: one an image.
        v4: drive of the V4-like sites to the same images.
    """
    category = np.array([row.category for row in latents])
    place = np.array([(row.x, row.y) for row in latents])
    size = np.array([row.size for row in latents])
    rotation, azimuth = np.deg2rad([(row.rotation, row.azimuth) for row in latents]).T
    early = v4 / np.maximum(v4.mean(axis=0), 1e-12)
    drives = []
    for _ in range(N_IT):
        preference = rng.gamma(0.5, 1.0, len(OBJECT_NAMES))
        centre, tolerance = rng.uniform(-0.15, 0.15, 2), rng.uniform(0.15, 0.4)
        tuned = np.exp(-((place - centre) ** 2).sum(axis=1) / (2 * tolerance**2))
        tuned /= 1 + np.exp(-(size - rng.uniform(0.45, 0.75)) / 0.08)
        tuned *= np.exp(rng.uniform(0, 1) * (np.cos(rotation - rng.uniform(-0.7, 0.7)) - 1))
        tuned *= np.exp(rng.uniform(0, 1) * (np.cos(azimuth - rng.uniform(-1.3, 1.3)) - 1))
        low = early[:, rng.integers(early.shape[1])]
        drives.append(np.maximum(preference[category] * tuned + 0.1 * (low - 1), 0))
    return np.stack(drives, axis=1)


def blank_counts(n_sites: int, rng: np.random.Generator) -> np.ndarray:
    """Expected spike counts for the blank grey stimulus, float64 (n_sites,)."""
    return rng.uniform(2.0, 5.0, n_sites).round(4)


def expected_counts(drive: np.ndarray, blank: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Expected spike counts in the window, float64 (n_images, n_sites): blank plus driven.

    The gain of a site is such that its expected counts vary over the images with a standard
    deviation of 1.2 to 3.5 spikes, which makes recordings about as reliable as real ones.
    """
    spread = drive.std(axis=0)
    gain = np.exp(rng.uniform(np.log(1.2), np.log(3.5), len(blank)))
    expected: np.ndarray = blank + gain * drive / np.where(spread > 0, spread, 1)
    return expected


def draw_counts(expected: np.ndarray, repetitions: int, rng: np.random.Generator) -> np.ndarray:
    """Spike counts (n_images, repetitions, n_sites): Poisson with a gamma-distributed rate.

    Their mean is ``expected`` and their variance `FANO_FACTOR` times it.
    """
    scale = FANO_FACTOR - 1
    n_images, n_sites = expected.shape
    rates = rng.gamma(expected[:, None] / scale, scale, (n_images, repetitions, n_sites))
    return rng.poisson(rates)


REGION = "simulated"
#: Directions of the layer, from the strongest down, that the hidden units see.
_DIRECTIONS = 24


def layer_drive(activations: np.ndarray, n_sites: int, rng: np.random.Generator) -> np.ndarray:
    """Drive of sites that read a layer, float64 (n_images, n_sites), not negative.

    Args:
        activations: of the layer, (n_images, D).
    """
    centred = activations.astype(np.float64) - activations.mean(axis=0, dtype=np.float64)
    # From the inner products of the images, which are fewer than the features.
    values, vectors = np.linalg.eigh(centred @ centred.T)
    strongest = np.argsort(values)[::-1][:_DIRECTIONS]
    spread = np.sqrt(np.maximum(values[strongest], 0) / len(centred))
    # Between the layer's own spectrum and a flat one, or two or three directions would drive all.
    coordinates = vectors[:, strongest] * np.sqrt(len(centred)) * np.sqrt(spread / spread[0])
    views = rng.standard_normal((coordinates.shape[1], n_sites, 4))
    seen = np.einsum("ik,ksu->isu", coordinates, views)
    seen /= np.maximum(seen.std(axis=0), 1e-12)
    hidden = np.maximum(seen - rng.uniform(-0.5, 0.5, (n_sites, 4)), 0)
    first, second, third, fourth = np.moveaxis(hidden, 2, 0)
    drive: np.ndarray = np.maximum(first * second + 0.4 * third - 0.4 * fourth, 0)
    return drive ** rng.uniform(0.6, 1.0, n_sites)


def simulate_from_layer(
    stimuli: Recordings, activations: np.ndarray, source: str, n_sites: int, seed: int
) -> Recordings:
    """Recordings of sites that read ``activations``, with the stimuli of other recordings.

    Args:
        stimuli: whose images and labels are taken; their responses are not.
        activations: of the source layer, (n_stimuli, D).
        source: what the layer is called, for the provenance.
        seed: of sites and trial noise.
    """
    rng = np.random.default_rng(seed)
    drive = layer_drive(activations, n_sites, rng)
    blank = model.blank_counts(n_sites, rng)
    scale = np.sqrt(model.FANO_FACTOR * blank)
    expected = model.expected_counts(drive, blank, rng)
    counts = model.draw_counts(expected, model.REPETITIONS, rng)
    return replace(
        stimuli,
        name=f"sites of {source}",
        site_ids=tuple(f"{source}/{i:03d}" for i in range(n_sites)),
        regions=(REGION,) * n_sites,
        site_labels={},
        responses=((counts - blank) / scale).astype(np.float32).reshape(-1, n_sites),
        presentation_stimulus=np.repeat(np.arange(stimuli.n_stimuli), model.REPETITIONS),
        repetition=np.tile(np.arange(model.REPETITIONS, dtype=np.int32), stimuli.n_stimuli),
        units=model.UNITS,
        normalised=True,
        time_window_ms=None,
        simulated=True,
        provenance={"source": source, "seed": seed, "n_sites": n_sites, "stimuli": stimuli.name},
        noise_free=((expected - blank) / scale).astype(np.float32),
    )
