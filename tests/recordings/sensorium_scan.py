"""Writes a small static scan of Sensorium: a file a trial."""

from pathlib import Path

import numpy as np

from tests.recordings.scenes import coarse_images, follow

NAME = "static22846-10-16-GrayImageNet-94c6ff995dac583098847cfecd43e7b6"
N_UNITS, N_IMAGES = 4, 130
#: Of each image: 110 of train, 15 of validation, 5 of test that are shown 3 times.
TIERS = ["train"] * 110 + ["validation"] * 15 + ["test"] * 15
IMAGES = [*range(125), *(125 + place for place in range(5) for _ in range(3))]


def write_scan(folder: Path) -> None:
    """Write data/ and meta/; responses follow the images with noise."""
    for part in ("data/images", "data/responses", "data/behavior", "meta/trials", "meta/neurons"):
        (folder / part).mkdir(parents=True)
    pixels = coarse_images(N_IMAGES)[..., 0]
    driven = follow(pixels, N_UNITS)
    rng = np.random.default_rng(0)
    for trial, image in enumerate(IMAGES):
        np.save(folder / f"data/images/{trial}.npy", pixels[image][None].astype(np.float64))
        response = driven[image] + rng.normal(size=N_UNITS) + 3
        np.save(folder / f"data/responses/{trial}.npy", response)
        np.save(folder / f"data/behavior/{trial}.npy", np.zeros(3))
    np.save(folder / "meta/trials/tiers.npy", np.array(TIERS))
    np.save(folder / "meta/trials/frame_image_id.npy", np.array(IMAGES) + 5000)
    np.save(folder / "meta/neurons/unit_ids.npy", np.array([7, 3, 11, 2]))
