"""Writes a small data_V4_responses of two sessions."""

import zipfile
from pathlib import Path

import numpy as np

from tests.recordings.scenes import coarse_images, save_images

N_SITES, N_IMAGES, N_REPETITIONS = 3, 12, 4


def write_cowley(folder: Path) -> None:
    """Write two sessions, one of them with repetitions; zips have a folder and another order."""
    for name in ("images", "responses_raw", "responses_repeat_averaged"):
        (folder / name).mkdir(parents=True)
    names = [f"image{place:04d}.jpg" for place in range(1, N_IMAGES + 1)]
    save_images(folder.parent / "pictures", names, coarse_images(N_IMAGES))
    rng = np.random.default_rng(2)
    for session in ("190925", "210325"):
        with zipfile.ZipFile(folder / "images" / f"images_{session}.zip", "w") as archive:
            for name in rng.permutation(names):
                archive.write(folder.parent / "pictures" / name, f"images_{session}/{name}")
        raw = rng.poisson(4, (N_SITES, N_IMAGES, N_REPETITIONS)).astype(float)
        raw[:, 5, 2:] = np.nan  # an image with two repetitions
        if session == "210325":
            np.save(folder / "responses_raw" / f"responses_{session}.npy", raw)
        averages = np.nanmean(raw, axis=2)
        np.save(folder / "responses_repeat_averaged" / f"responses_{session}.npy", averages)
