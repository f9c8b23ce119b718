"""A static scan of Sensorium: a folder or zip of one file a trial."""

import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nrp_onnx.recordings import import_path, validate_recordings
from tests.command_line import assert_one_line_error, nrp_onnx
from tests.recordings.scenes import coarse_images
from tests.recordings.sensorium_scan import IMAGES, N_IMAGES, NAME, write_scan


@pytest.fixture
def scan(tmp_path: Path) -> Path:
    write_scan(tmp_path / NAME)
    return tmp_path / NAME


@pytest.mark.parametrize("packed", [False, True])
def test_trials_become_presentations_of_their_images(scan, tmp_path, packed, caplog):
    path = scan
    if packed:
        path = tmp_path / f"{NAME}.zip"
        with zipfile.ZipFile(path, "w") as archive:
            for file in sorted(scan.rglob("*.npy")):
                archive.write(file, f"{NAME}/{file.relative_to(scan)}")
    read = import_path(path, tmp_path / "out")
    rates = np.stack([np.load(scan / f"data/responses/{t}.npy") for t in range(len(IMAGES))])
    expected = np.stack(
        [rates[np.array(IMAGES) == image].mean(axis=0) for image in range(N_IMAGES)]
    )
    np.testing.assert_allclose(read.averages, expected, rtol=1e-5)
    assert read.stimulus_ids[:2] == ("5000", "5001")
    assert read.repetition_counts()[:, 0].tolist() == [1] * 125 + [3] * 5
    assert read.stimulus_labels["split"] == ("train",) * 125 + ("test",) * 5
    assert read.stimulus_labels["tier"][112] == "validation"
    assert read.regions == ("V1",) * 4
    assert read.site_ids == tuple(f"22846-10-16_{unit}" for unit in (7, 3, 11, 2))
    assert read.site_labels["animal"] == ("22846",) * 4
    assert read.site_labels["session"] == ("22846-10-16",) * 4
    with Image.open(read.stimulus_paths[9]) as image:
        np.testing.assert_array_equal(np.asarray(image), coarse_images(N_IMAGES)[9, ..., 0])
    assert "trials of the tier validation count as train" in caplog.text
    assert "shuffled" not in caplog.text
    assert validate_recordings(tmp_path / "out") == []


def test_trials_without_published_responses_are_left_out_and_counted(scan, tmp_path, caplog):
    tiers = np.load(scan / "meta/trials/tiers.npy")
    tiers[:4] = "none"
    np.save(scan / "meta/trials/tiers.npy", tiers)
    read = import_path(scan, tmp_path / "out", region="LM")
    assert read.n_stimuli == N_IMAGES - 4
    assert read.regions == ("LM",) * 4
    assert "4 trials of the tiers 'none' are left out" in caplog.text
    assert read.provenance["n_trials_left_out"] == 4


def swap_images(scan: Path) -> None:
    """A repeated image under the number of another trial."""
    first, second = scan / "data/images/126.npy", scan / "data/images/0.npy"
    shutil.copy(second, first)


def save(name: str, change):
    def damage(scan: Path) -> None:
        np.save(scan / name, change(np.load(scan / name)), allow_pickle=True)

    return damage


def both_parts(scan: Path) -> None:
    tiers = np.load(scan / "meta/trials/tiers.npy")
    tiers[-1] = "train"
    np.save(scan / "meta/trials/tiers.npy", tiers)


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (save("data/responses/3.npy", lambda a: a[:2]), "data/responses/3.npy: the responses of a "
         "trial do not fit; expected 4 numbers, one a unit of meta/neurons/unit_ids.npy"),
        (save("meta/trials/tiers.npy", lambda a: a[:-1]), "the trials do not fit each other"),
        (save("meta/trials/tiers.npy", lambda a: a.astype(object)), "tiers.npy: this array cannot be "
         "read; expected a whole .npy file without pickled objects"),
        (save("meta/neurons/unit_ids.npy", lambda a: a[:3]), "expected 3 numbers, one a unit"),
        (save("data/images/0.npy", lambda a: a / 255), "these pixels are no "
         "8-bit image; expected brightness from 0 to 255"),
        (save("data/images/0.npy", lambda a: np.zeros((2, 5, 5))), "these pixels are no image"),
        (swap_images, "two images have the id '5125'; expected one image in data/images/125.npy and "
         "data/images/126.npy; found other pixels"),
        (both_parts, "1 images are shown in trials of both train and test"),
        (lambda scan: (scan / "meta/trials/frame_image_id.npy").unlink(),
         "the scan has no meta/trials/frame_image_id.npy"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_in_one_line(scan, tmp_path, damage, says):
    damage(scan)
    run = nrp_onnx("recordings", "import", scan, "-o", tmp_path / "out")
    lines = [line for line in run.stderr.splitlines() if line.startswith("error: ")]
    assert run.returncode == 2, run.stderr
    assert len(lines) == 1
    assert says in lines[0]
    assert not (tmp_path / "out").exists()


def test_a_damaged_zip(tmp_path):
    path = tmp_path / f"{NAME}.zip"
    path.write_bytes(b"PK\x03\x04 not all of it")
    run = nrp_onnx("recordings", "import", path, "-o", tmp_path / "out")
    assert_one_line_error(run, "no such images; expected a folder or a zip of images")
