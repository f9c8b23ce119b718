"""Simulated recordings, whose truth is known: the embedded default."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from nrp_onnx.files import whole_folder
from nrp_onnx.progress import progress_bar
from nrp_onnx.recordings.folder import load_recordings, write_tables
from nrp_onnx.recordings.simulation import sites as model
from nrp_onnx.recordings.simulation.stimuli import CATEGORIES, PIXELS, draw_latents, render
from nrp_onnx.recordings.types import Recordings

#: Goes up with every change that changes a byte of what is simulated.
SIMULATION_VERSION = 1
N_STIMULI = 3200
REPETITIONS = 10
#: Rates are divided by the standard deviation of a single response to the blank stimulus.
_BLANK_SD = float(np.sqrt(model.FANO_FACTOR * model.BLANK_COUNT))
_BLOCK = 64


def simulate_recordings(folder: Path, n_stimuli: int = N_STIMULI, seed: int = 0) -> Recordings:
    """Render stimuli and simulate the responses of 88 V4-like and 168 IT-like sites.

    The same seed and number give the same bytes. Rates are (count - blank) / s, with the expected
    count for a blank grey stimulus and the standard deviation s of one response to it; the
    noise-free rates are kept beside the noisy ones.
    """
    latents = [draw_latents(seed, index) for index in range(n_stimuli)]
    names = [f"sim{seed}_{index:05d}" for index in range(n_stimuli)]
    with whole_folder(folder) as part:
        (part / "stimuli").mkdir()

        def block(start: int) -> np.ndarray:
            energies = []
            for index in range(start, min(start + _BLOCK, n_stimuli)):
                image = render(seed, index)
                image.save(part / "stimuli" / f"{names[index]}.png", compress_level=6)
                energies.append(np.asarray(image.convert("L"), np.float32) / 255)
            advance(len(energies))
            return model.gabor_energy(np.stack(energies))

        with (
            progress_bar("Rendering simulated stimuli", n_stimuli) as advance,
            ThreadPoolExecutor() as pool,
        ):
            energy = np.concatenate(list(pool.map(block, range(0, n_stimuli, _BLOCK))))
        rng = np.random.default_rng([seed, n_stimuli])
        v4 = model.v4_drive(energy, model.N_V4, rng)
        drive = np.hstack([v4, model.it_drive(latents, v4, model.N_IT, rng)])
        expected = model.expected_counts(drive, rng)
        counts = model.draw_counts(expected, REPETITIONS, rng)
        n_sites = expected.shape[1]
        rates = ((counts - model.BLANK_COUNT) / _BLANK_SD).astype(np.float32)
        regions = ("V4",) * model.N_V4 + ("IT",) * model.N_IT
        recordings = Recordings(
            name=f"simulated:{n_stimuli}",
            stimulus_ids=tuple(names),
            stimulus_paths=tuple(part / "stimuli" / f"{name}.png" for name in names),
            stimulus_labels={
                "object_name": tuple(CATEGORIES[row.category] for row in latents),
                **{
                    name: tuple(f"{getattr(row, name):.6f}" for row in latents)
                    for name in ("x", "y", "size", "rotation", "tilt")
                },
            },
            site_ids=tuple(f"{region}_{i:03d}" for i, region in enumerate(regions)),
            regions=regions,
            site_labels={"animal": tuple(f"simulated {1 + i % 2}" for i in range(n_sites))},
            responses=rates.transpose(1, 0, 2).reshape(-1, n_sites),
            presentation_stimulus=np.repeat(np.arange(n_stimuli), REPETITIONS),
            repetition=np.tile(np.arange(REPETITIONS, dtype=np.int32), n_stimuli),
            units="(spike count - blank) / s.d. of a blank response",
            normalised=True,
            time_window_ms=(70.0, 170.0),
            licence="CC0-1.0",
            simulated=True,
            provenance={
                "simulation_version": SIMULATION_VERSION,
                "seed": seed,
                "n_stimuli": n_stimuli,
                "pixels": PIXELS,
                "repetitions": REPETITIONS,
                "blank_count": model.BLANK_COUNT,
                "fano_factor": model.FANO_FACTOR,
            },
            noise_free=((expected - model.BLANK_COUNT) / _BLANK_SD).astype(np.float32),
        )
        write_tables(recordings, [f"{name}.png" for name in names], part)
    return load_recordings(folder)
