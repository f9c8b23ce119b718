"""Writes a small subject's folder of the Algonauts 2023 challenge."""

from pathlib import Path

import numpy as np

from tests.recordings.conftest import write_images

NSD = (13, 7, 20001, 5)
#: Numbers of the public masks: V1v, V2d, hV4; EBA, FBA-2; early, ventral.
MASKS = {
    "lh": {"prf-visualrois": [0, 1, 4, 0, 0], "floc-bodies": [0, 0, 1, 3, 0],
           "streams": [0, 1, 1, 5, 5]},
    "rh": {"prf-visualrois": [7, 0, 0], "floc-bodies": [0, 0, 0], "streams": [1, 0, 5]},
}  # fmt: skip


def write_subject(folder: Path) -> None:
    """4 images, 5 and 3 vertices, 3 masks in two spaces, pickled mappings, a test split."""
    names = [f"train-{row:04d}_nsd-{nsd:05d}.png" for row, nsd in enumerate(NSD, start=1)]
    write_images(folder / "training_split" / "training_images", names)
    write_images(folder / "test_split" / "test_images", ["test-0001_nsd-00845.png"])
    fmri = folder / "training_split" / "training_fmri"
    fmri.mkdir()
    (folder / "roi_masks").mkdir()
    rng = np.random.default_rng(0)
    for side, masks in MASKS.items():
        n = len(masks["streams"])
        np.save(fmri / f"{side}_training_fmri.npy", rng.normal(size=(4, n)).astype(np.float32))
        for name, numbers in masks.items():
            path = folder / "roi_masks" / f"{side}.{name}_challenge_space.npy"
            np.save(path, np.array(numbers))
            np.save(folder / "roi_masks" / f"{side}.{name}_fsaverage_space.npy", np.arange(9))
    for name in MASKS["lh"]:
        mapping = np.array({0: "Unknown", 1: "never read"}, object)
        np.save(folder / "roi_masks" / f"mapping_{name}.npy", mapping, allow_pickle=True)
