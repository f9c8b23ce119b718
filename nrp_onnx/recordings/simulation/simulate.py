"""Simulated recordings, whose truth is known: the embedded default."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from nrp_onnx.files import whole_folder
from nrp_onnx.progress import progress_bar
from nrp_onnx.recordings.folder import check_free, load_recordings, write_tables
from nrp_onnx.recordings.recordings import Recordings
from nrp_onnx.recordings.simulation import sites as model
from nrp_onnx.recordings.simulation.stimuli import OBJECT_NAMES, PIXELS, draw_latents, render

#: Goes up with every change that changes a byte of what is simulated.
SIMULATION_VERSION = 2
N_STIMULI = 3200
_LATENTS = ("x", "y", "size", "rotation", "azimuth", "tilt")
_BLOCK = 32


def simulate_recordings(folder: Path, n_stimuli: int = N_STIMULI, seed: int = 0) -> Recordings:
    """Render stimuli and simulate the responses of 88 V4-like and 168 IT-like sites.

    The same seed and number give the same bytes. With b the expected count of a site for a blank
    grey stimulus, its rates are (count - b) / sqrt(F b): relative to the blank, in standard
    deviations of the counts for it, F being the Fano factor. ``noise_free`` is their expectation.

    Args:
        folder: a new or empty folder, which is written whole or not at all.
        n_stimuli: the first of an endless series of images; the categories take turns.
        seed: of images, sites and trial noise.

    Raises:
        OutputError: if the folder is taken.
    """
    check_free(folder)
    names = [f"simulated_{seed}_{index:05d}" for index in range(n_stimuli)]
    with whole_folder(folder) as part:
        (part / "stimuli").mkdir()
        energy = _render_all(part / "stimuli", names, seed)
        recordings = _respond(part / "stimuli", names, energy, seed)
        write_tables(recordings, [f"{name}.png" for name in names], part)
    return load_recordings(folder)


def _render_all(folder: Path, names: list[str], seed: int) -> np.ndarray:
    """Write the images; their Gabor energy, float32 (n_images, maps, GRID, GRID)."""

    def block(start: int) -> np.ndarray:
        luminance = []
        for index in range(start, min(start + _BLOCK, len(names))):
            image = render(seed, index)
            image.save(folder / f"{names[index]}.png", compress_level=4)
            grey = image.convert("L").reduce(PIXELS // model.LUMINANCE_PIXELS)
            luminance.append(np.asarray(grey, np.float32) / 255)
            advance(1)
        return model.gabor_energy(np.stack(luminance))

    with (
        progress_bar("Rendering simulated stimuli", len(names)) as advance,
        ThreadPoolExecutor() as pool,
    ):
        return np.concatenate(list(pool.map(block, range(0, len(names), _BLOCK))))


def _respond(folder: Path, names: list[str], energy: np.ndarray, seed: int) -> Recordings:
    """The responses of all sites to the images, in units of the blank."""
    latents = [draw_latents(seed, index) for index in range(len(names))]
    # Other third words than those of the images, whose generators are (seed, index, 0 or 1).
    for_sites, for_trials = (np.random.default_rng([seed, 0, purpose]) for purpose in (2, 3))
    v4 = model.v4_drive(energy, for_sites)
    drive = np.hstack([v4, model.it_drive(latents, v4, for_sites)])
    n_sites = drive.shape[1]
    blank = model.blank_counts(n_sites, for_sites)
    scale = np.sqrt(model.FANO_FACTOR * blank)
    expected = model.expected_counts(drive, blank, for_sites)
    counts = model.draw_counts(expected, model.REPETITIONS, for_trials)
    regions = ("V4",) * model.N_V4 + ("IT",) * model.N_IT
    return Recordings(
        name=f"simulated:{len(names)}",
        stimulus_ids=tuple(names),
        stimulus_paths=tuple(folder / f"{name}.png" for name in names),
        stimulus_labels={
            "object_name": tuple(OBJECT_NAMES[row.category] for row in latents),
            **{key: tuple(str(getattr(row, key)) for row in latents) for key in _LATENTS},
        },
        site_ids=tuple(f"{region}_{i:03d}" for i, region in enumerate(regions)),
        regions=regions,
        site_labels={
            "animal": tuple(f"simulated {1 + i % 2}" for i in range(n_sites)),
            "blank_count": tuple(str(count) for count in blank.tolist()),
        },
        responses=((counts - blank) / scale).astype(np.float32).reshape(-1, n_sites),
        presentation_stimulus=np.repeat(np.arange(len(names)), model.REPETITIONS),
        repetition=np.tile(np.arange(model.REPETITIONS, dtype=np.int32), len(names)),
        units=model.UNITS,
        normalised=True,
        time_window_ms=(70.0, 170.0),
        licence="CC0-1.0",
        citation=None,
        simulated=True,
        provenance={
            "simulation_version": SIMULATION_VERSION,
            "seed": seed,
            "n_stimuli": len(names),
            "pixels": PIXELS,
            "repetitions": model.REPETITIONS,
            "fano_factor": model.FANO_FACTOR,
        },
        noise_free=((expected - blank) / scale).astype(np.float32),
    )
