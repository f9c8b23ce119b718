"""Writes a small subject of LAION-fMRI in its BIDS tree: betas, trials, masks, splits."""

import csv
import json
from pathlib import Path

import nibabel
import numpy as np

from tests.recordings.scenes import coarse_images, follow, save_images

SHAPE = (2, 3, 4)
N_IMAGES, N_TRIALS = 120, 180
LABELS = [f"shared_{place:04d}.jpg" for place in range(N_IMAGES)]
#: Of two sessions: every image once, then again.
SHOWN = np.concatenate([np.arange(N_TRIALS) % N_IMAGES, (np.arange(N_TRIALS) * 7) % N_IMAGES])
V1, FFA1 = ((0, 0, 0), (1, 2, 3)), ((1, 2, 3), (0, 1, 1))


def write_laion(root: Path) -> Path:
    """Write derivatives/, images/ and splits/.

    Returns:
        The folder of sub-01 in glmsingle-tedana.
    """
    rng = np.random.default_rng(0)
    images = coarse_images(N_IMAGES)
    save_images(root / "images", LABELS, images)
    folder = root / "derivatives" / "glmsingle-tedana" / "sub-01"
    volumes = follow(images, 24)[SHOWN].reshape(-1, *SHAPE)
    volumes = volumes + rng.normal(size=volumes.shape)
    for session in (1, 2):
        func = folder / f"ses-{session:02d}" / "func"
        func.mkdir(parents=True)
        stem = f"sub-01_ses-{session:02d}_task-images"
        rows = slice((session - 1) * N_TRIALS, session * N_TRIALS)
        series = np.moveaxis(volumes[rows], 0, -1)
        image = nibabel.Nifti1Image(series.astype(np.float32), np.eye(4))
        name = f"{stem}_space-T1w_stat-effect_desc-SingletrialBetas_statmap.nii.gz"
        nibabel.save(image, func / name)
        with (func / f"{stem}_desc-SingletrialBetas_trials.tsv").open("w", newline="") as file:
            writer = csv.writer(file, delimiter="\t")
            writer.writerow(["session", "run", "beta_index", "label"])
            writer.writerows(
                [f"ses-{session:02d}", 1, row, LABELS[shown]]
                for row, shown in enumerate(SHOWN[rows])
            )
    for category, name, voxels in (("retinotopy", "V1", V1), ("face", "FFA-1", FFA1)):
        roi = root / "derivatives" / "rois" / "sub-01" / category
        roi.mkdir(parents=True)
        mask = np.zeros(SHAPE, np.uint8)
        for voxel in voxels:
            mask[voxel] = 1
        place = roi / f"sub-01_space-T1w_label-{name}_mask.nii.gz"
        nibabel.save(nibabel.Nifti1Image(mask, np.eye(4)), place)
    (root / "splits").mkdir()
    for name, train in (("tau", LABELS[:90]), ("ood", LABELS[:100])):
        variants = [{"train_ids": train, "test_ids": [*LABELS[100:], "other.jpg"]}]
        content = {"name": name, "pool": "shared", "params": {}, "variants": variants}
        (root / "splits" / f"{name}.json").write_text(json.dumps(content))
    return folder
