"""Sessions of V4 in the layout of data_V4_responses, of made-up and of recorded numbers."""

import csv
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest

from nrp_onnx.recordings import import_path, validate_recordings
from tests.command_line import assert_one_line_error, nrp_onnx
from tests.recordings.cowley_folder import write_cowley


@pytest.fixture
def data(tmp_path: Path) -> Path:
    write_cowley(tmp_path / "data_V4_responses")
    return tmp_path / "data_V4_responses"


def test_repetitions_are_read_where_they_are(data, tmp_path):
    read = import_path(data, tmp_path / "out", session="210325")
    raw = np.load(data / "responses_raw" / "responses_210325.npy")
    np.testing.assert_allclose(read.averages, np.nanmean(raw, axis=2).T, rtol=1e-6)
    assert read.repetition_counts()[:, 0].tolist() == [4] * 5 + [2] + [4] * 6
    assert read.stimulus_ids[:2] == ("210325_image0001", "210325_image0002")
    assert read.site_labels == {"animal": ("PE",) * 3, "session": ("210325",) * 3}
    assert read.site_ids == ("210325_000", "210325_001", "210325_002")
    assert (read.regions, read.units) == (("V4",) * 3, "spikes in 100 ms")
    assert "Cowley" in (read.citation or "")
    assert validate_recordings(tmp_path / "out") == []


def test_images_pair_by_their_numbers_not_by_the_order_of_the_zip(data, tmp_path):
    file = data / "responses_repeat_averaged" / "responses_190925.npy"
    read = import_path(file, tmp_path / "out")
    np.testing.assert_allclose(read.averages, np.load(file).T, rtol=1e-6)
    assert read.site_labels["animal"] == ("WE",) * 3
    for place, path in enumerate(read.stimulus_paths, start=1):
        shown = tmp_path / "pictures" / f"image{place:04d}.jpg"
        assert path.read_bytes() == shown.read_bytes()


def transpose(data: Path) -> None:
    file = data / "responses_repeat_averaged" / "responses_190925.npy"
    np.save(file, np.load(file).T)


def cut(data: Path) -> None:
    file = data / "responses_repeat_averaged" / "responses_190925.npy"
    np.save(file, np.load(file)[:, :-1])


def pickle(data: Path) -> None:
    file = data / "responses_repeat_averaged" / "responses_190925.npy"
    np.save(file, np.load(file).astype(object), allow_pickle=True)


def gap(data: Path) -> None:
    with zipfile.ZipFile(data / "images" / "images_190925.zip", "w") as archive:
        for place in (1, 2, 4):
            archive.write(
                data.parent / "pictures" / f"image{place:04d}.jpg", f"image{place:04d}.jpg"
            )


def half_zip(data: Path) -> None:
    file = data / "images" / "images_190925.zip"
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


@pytest.mark.parametrize(
    ("damage", "options", "says"),
    [
        (transpose, ["--session", "190925"], "responses_190925.npy: the responses are transposed"),
        (cut, ["--session", "190925"], "the responses do not fit the images; expected site x image, "
         "with the 12 images"),
        (pickle, ["--session", "190925"], "this array cannot be read"),
        (gap, ["--session", "190925"], "the images do not name their place; expected image0001.jpg"),
        (half_zip, ["--session", "190925"], "images_190925.zip: no such images"),
        (lambda data: None, [], "the folder holds 2 sessions; expected --session as one of 190925, "
         "210325"),
        (lambda data: None, ["--session", "1"], "--session: there is no such session"),
        (lambda data: None, ["--session", "190925", "--region", "V4"],
         "--region: these do not go with the format cowley_v4"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_in_one_line(data, tmp_path, damage, options, says):
    damage(data)
    run = nrp_onnx("recordings", "import", data, *options, "-o", tmp_path / "out")
    assert_one_line_error(run, says)
    assert not (tmp_path / "out").exists()


def test_the_recorded_session_with_a_shuffled_zip(shared, tmp_path):
    """Its folder is right, the order of its zip is warned of, a transposed array is refused."""
    recorded = shared / "data" / "macaque_v4_190925"
    if not recorded.is_dir():
        pytest.skip("the recorded session 190925 is not beside the checkout")
    data = tmp_path / "data_V4_responses"
    for kind in ("images", "responses_repeat_averaged"):
        (data / kind).mkdir(parents=True)
    os.symlink(recorded / "images.zip", data / "images" / "images_190925.zip")
    os.symlink(
        recorded / "responses.npy", data / "responses_repeat_averaged" / "responses_190925.npy"
    )
    run = nrp_onnx("recordings", "import", data, "-o", tmp_path / "right")
    assert run.returncode == 0, run.stderr
    assert "shuffled" not in run.stderr
    assert "look paired" not in run.stderr
    with zipfile.ZipFile(recorded / "images.zip") as archive:
        names = archive.namelist()
    with (tmp_path / "zip.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("stimulus_id", "filename"), *((n, n) for n in names)])
    arrays = [recorded / "images.zip", recorded / "responses.npy", "--region", "V4"]
    table = ["--stimuli", tmp_path / "zip.csv"]
    command = ["recordings", "import", *arrays]
    run = nrp_onnx(*command, *table, "--axes", "site,stimulus", "-o", tmp_path / "wrong")
    assert run.returncode == 0, run.stderr
    assert "worse than in another order, that of the file names" in run.stderr
    run = nrp_onnx(*command, "--axes", "stimulus,site", "-o", tmp_path / "turned")
    assert run.returncode == 2
    assert "the array is transposed" in run.stderr
    assert "Write --axes site,stimulus." in run.stderr
