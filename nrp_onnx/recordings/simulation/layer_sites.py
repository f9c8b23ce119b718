"""Simulated sites that read a known layer of a known network: the truth of a model recovery.

A site takes a handful of hidden units, each a rectified random view of the layer, multiplies two of
them, is driven by a third and suppressed by a fourth, and passes the rectified sum through a power
law, as the V4-like sites do with the Gabor energy. So its rate is a non-linear function of the layer
that no linear map of the layer gives, and its trials scatter as those of the other simulated sites.
"""

from dataclasses import replace

import numpy as np

from nrp_onnx.recordings.simulation import sites as model
from nrp_onnx.recordings.types import Recordings

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
