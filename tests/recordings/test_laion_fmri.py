"""A subject of LAION-fMRI in the BIDS tree of the data set: betas, trials, masks, splits."""

import csv
import json
from pathlib import Path

import nibabel
import numpy as np
import pytest

from nrp_onnx.recordings import import_path
from tests.command_line import assert_one_line_error, nrp_onnx
from tests.recordings.scenes import coarse_images, follow, save_images

SHAPE = (2, 3, 4)
N_IMAGES, N_TRIALS = 120, 180
LABELS = [f"shared_{place:04d}.jpg" for place in range(N_IMAGES)]
#: Of two sessions: every image once, then again.
SHOWN = np.concatenate([np.arange(N_TRIALS) % N_IMAGES, (np.arange(N_TRIALS) * 7) % N_IMAGES])
V1, FFA1 = ((0, 0, 0), (1, 2, 3)), ((1, 2, 3), (0, 1, 1))


@pytest.fixture
def subject(tmp_path: Path) -> Path:
    """sub-01 of derivatives/glmsingle-tedana, with masks, images and splits beside it."""
    rng = np.random.default_rng(0)
    images = coarse_images(N_IMAGES)
    save_images(tmp_path / "images", LABELS, images)
    folder = tmp_path / "derivatives" / "glmsingle-tedana" / "sub-01"
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
        roi = tmp_path / "derivatives" / "rois" / "sub-01" / category
        roi.mkdir(parents=True)
        mask = np.zeros(SHAPE, np.uint8)
        for voxel in voxels:
            mask[voxel] = 1
        place = roi / f"sub-01_space-T1w_label-{name}_mask.nii.gz"
        nibabel.save(nibabel.Nifti1Image(mask, np.eye(4)), place)
    (tmp_path / "splits").mkdir()
    for name, train in (("tau", LABELS[:90]), ("ood", LABELS[:100])):
        variants = [{"train_ids": train, "test_ids": [*LABELS[100:], "other.jpg"]}]
        content = {"name": name, "pool": "shared", "params": {}, "variants": variants}
        (tmp_path / "splits" / f"{name}.json").write_text(json.dumps(content))
    return folder


def averages(subject: Path, voxels: list[tuple[int, int, int]]) -> np.ndarray:
    """Over the z-scored sessions, as nibabel reads them: (n_images, n_voxels)."""
    sessions = []
    for file in sorted(subject.rglob("*.nii.gz")):
        series = nibabel.Nifti1Image.from_filename(file).get_fdata()
        part = np.stack([series[voxel] for voxel in voxels], axis=1)
        sessions.append((part - part.mean(axis=0)) / part.std(axis=0))
    trials = np.concatenate(sessions)
    return np.stack([trials[image == SHOWN].mean(axis=0) for image in range(N_IMAGES)])


def test_trials_masks_and_splits_are_those_of_the_tree(subject, tmp_path, caplog):
    read = import_path(
        subject, tmp_path / "out", images=tmp_path / "images", rois=["V1", "FFA-1"],
        splits=tmp_path / "splits",
    )  # fmt: skip
    expected = averages(subject, [(0, 0, 0), (0, 1, 1), (1, 2, 3)])
    np.testing.assert_allclose(read.averages, expected, atol=1e-5)
    assert read.regions == ("V1", "FFA-1", "V1"), "the first mask that has a voxel counts"
    assert read.stimulus_ids[3] == "shared_0003"
    assert read.stimulus_paths[3].read_bytes() == (tmp_path / "images" / LABELS[3]).read_bytes()
    assert set(read.site_labels["animal"]) == {"sub-01"}
    assert read.visual_degrees == 9.2
    splits = json.loads((tmp_path / "out" / "splits.json").read_text())
    assert list(splits) == ["ood_shared", "tau_shared"]
    assert splits["tau_shared"]["train"] == list(read.stimulus_ids[:90])
    assert splits["tau_shared"]["test"] == list(read.stimulus_ids[100:])
    assert "1 images of the split tau_shared were not shown to this subject" in caplog.text
    assert not read.provenance["image_order"]["all"]["looks_wrong"]


def one_trial_less(subject: Path) -> None:
    table = next(subject.rglob("*ses-02*trials.tsv"))
    table.write_text("\n".join(table.read_text().splitlines()[:-1]) + "\n")


def half(subject: Path) -> None:
    path = next(subject.rglob("*ses-02*.nii.gz"))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def no_labels(subject: Path) -> None:
    table = next(subject.rglob("*ses-01*trials.tsv"))
    table.write_text(table.read_text().replace("label", "image"))


def other_volume(subject: Path) -> None:
    path = next(subject.parents[1].rglob("*label-V1_mask.nii.gz"))
    nibabel.save(nibabel.Nifti1Image(np.ones(SHAPE[::-1], np.uint8), np.eye(4)), path)


def no_split(subject: Path) -> None:
    (subject.parents[2] / "splits" / "tau.json").write_text('{"name": "tau"}')


@pytest.mark.parametrize(
    ("damage", "rois", "says"),
    [
        (one_trial_less, "V1", "the betas do not fit their trials; expected x, y, z and 179 trials"),
        (half, "V1", "this file cannot be read; expected a whole NIfTI file"),
        (no_labels, "V1", "the table does not name the image of each trial"),
        (other_volume, "V1", "the mask is of another volume than the betas; expected (2, 3, 4); found "
         "(4, 3, 2)"),
        (no_split, "V1", "tau.json: this is no split"),
        (lambda subject: None, "V9", "--rois: there is no such mask; expected some of FFA-1, V1"),
        (lambda subject: (subject.parents[2] / "images" / LABELS[5]).unlink(), "V1",
         "1 of the 120 images of the trials are missing; expected 'shared_0005.jpg'"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_in_one_line(subject, tmp_path, damage, rois, says):
    damage(subject)
    run = nrp_onnx(
        "recordings", "import", subject, "--images", tmp_path / "images", "--rois", rois,
        "--splits", tmp_path / "splits", "-o", tmp_path / "out",
    )  # fmt: skip
    errors = [line for line in run.stderr.splitlines() if line.startswith("error: ")]
    assert run.returncode == 2, run.stderr
    assert len(errors) == 1
    assert says in errors[0]
    assert not (tmp_path / "out").exists()


def test_what_is_needed_is_asked_for(subject, tmp_path):
    run = nrp_onnx("recordings", "import", subject, "-o", tmp_path / "out")
    assert_one_line_error(run, "--images, --rois: the format laion_fmri needs more than sub-01")
