"""A subject of LAION-fMRI in the BIDS tree of the data set: betas, trials, masks, splits."""

import json
from pathlib import Path

import nibabel
import numpy as np
import pytest

from nrp_onnx.recordings import import_path
from tests.command_line import assert_one_line_error, nrp_onnx
from tests.recordings.laion_tree import LABELS, N_IMAGES, SHAPE, SHOWN, write_laion


@pytest.fixture
def subject(tmp_path: Path) -> Path:
    return write_laion(tmp_path)


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
