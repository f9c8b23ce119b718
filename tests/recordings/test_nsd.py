"""A subject of NSD in the data set's tree: betas, design, masks, images."""

from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image

from nrp_onnx.recordings import import_path
from tests.command_line import nrp_onnx
from tests.recordings.nsd_tree import N_IMAGES, bold_images, write_nsd
from tests.recordings.scenes import coarse_images


@pytest.fixture(scope="module")
def bold() -> np.ndarray:
    return bold_images()


@pytest.fixture
def betas(tmp_path: Path) -> Path:
    return write_nsd(tmp_path)


def expected(betas: Path, bold: np.ndarray) -> np.ndarray:
    """Averages of the voxels (0,0,0), (1,1,1) and (1,2,3) over z-scored sessions: (300, 3)."""
    sessions = []
    for session in (1, 2):
        with h5py.File(betas / f"betas_session{session:02d}.hdf5") as file:
            values = file["betas"][...].astype(float) / 300
        part = np.stack(
            [values[:, z, y, x] for x, y, z in ((0, 0, 0), (1, 1, 1), (1, 2, 3))], axis=1
        )
        sessions.append((part - part.mean(axis=0)) / part.std(axis=0))
    trials = np.concatenate(sessions)
    return np.stack([trials[bold == image].mean(axis=0) for image in range(300)])


def test_trials_regions_and_images_are_those_of_the_tree(betas, bold, tmp_path, caplog):
    read = import_path(betas, tmp_path / "out")
    np.testing.assert_allclose(read.averages, expected(betas, bold), atol=1e-4)
    assert read.regions == ("V1v", "FFA-1", "hV4")
    assert read.site_labels["floc-faces"] == ("FFA-1", "FFA-1", "")
    assert set(read.site_labels["animal"]) == {"subj02"}
    assert read.stimulus_ids[0] == "nsd-00300"
    assert read.stimulus_labels["split"] == ("train",) * 250 + ("test",) * 50
    assert set(read.repetition_counts().ravel()) == {5}
    with Image.open(read.stimulus_paths[7]) as image:
        np.testing.assert_array_equal(np.asarray(image), coarse_images(N_IMAGES)[307])
    assert (read.visual_degrees, read.normalised) == (8.4, True)
    assert "1 of 4 voxels are 0 in a session and are left out" in caplog.text
    assert "betas are z-scored within each session" in caplog.text
    assert not read.provenance["image_order"]["train"]["looks_wrong"]


def test_masks_are_chosen(betas, tmp_path):
    read = import_path(betas, tmp_path / "out", rois=["floc-faces"])
    assert read.regions == ("FFA-1", "FFA-1")


def transpose(betas: Path) -> None:
    with h5py.File(betas / "betas_session02.hdf5", "a") as file:
        old = file["betas"][...]
        del file["betas"]
        file["betas"] = old.T


def half(name: str):
    def damage(betas: Path) -> None:
        path = betas.parents[4] / name if "/" in name else betas / name
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])

    return damage


def few_images(betas: Path) -> None:
    with h5py.File(betas.parents[4] / "nsddata_stimuli/stimuli/nsd/nsd_stimuli.hdf5", "a") as file:
        old = file["imgBrick"][:400]
        del file["imgBrick"]
        file["imgBrick"] = old


MASK = "nsddata/ppdata/subj02/func1pt8mm/roi/floc-faces.nii.gz"


@pytest.mark.parametrize(
    ("damage", "options", "says"),
    [
        (transpose, [], "betas_session02.hdf5: betas are transposed; expected trials x z x y x x, "
         "(750, 4, 3, 2)"),
        (half("betas_session01.hdf5"), [], "this file cannot be read; expected a whole HDF5 file"),
        (half(MASK), [], "floc-faces.nii.gz: this file cannot be read; expected a whole NIfTI file"),
        (half("nsddata/experiments/nsd/nsd_expdesign.mat"), [], "this design cannot be read"),
        (few_images, [], "imgBrick does not fit the design; expected 600 or more images"),
        (lambda betas: None, ["--rois", "streams"], "--rois: there are no such masks; expected some "
         "of prf-visualrois, floc-faces as .nii.gz; found 'streams'"),
        (lambda betas: (betas.parents[4] / "nsddata/experiments/nsd/nsd_expdesign.mat").unlink(), [],
         "nsd_expdesign.mat: no such file; expected the design of NSD"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_in_one_line(betas, tmp_path, damage, options, says):
    damage(betas)
    run = nrp_onnx("recordings", "import", betas, *options, "-o", tmp_path / "out")
    errors = [line for line in run.stderr.splitlines() if line.startswith("error: ")]
    assert run.returncode == 2, run.stderr
    assert len(errors) == 1
    assert says in errors[0]
    assert not (tmp_path / "out").exists()


def test_a_folder_outside_the_tree(betas, tmp_path):
    moved = betas.rename(tmp_path / "betas")
    run = nrp_onnx("recordings", "import", moved, "-o", tmp_path / "out")
    assert run.returncode == 2
    assert "this folder is in no tree of NSD" in run.stderr
