"""NWB files written with pynwb: spikes, presentations, images."""

from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image

from nrp_onnx.recordings import import_path, validate_recordings
from tests.command_line import assert_one_line_error, nrp_onnx
from tests.recordings.nwb_file import (
    N_IMAGES,
    N_REPETITIONS,
    REGIONS,
    spikes_and_starts,
    write_nwb,
)
from tests.recordings.scenes import coarse_images, save_images


def rates(window: tuple[float, float]) -> np.ndarray:
    """Spikes per second counted one by one: (n_presentations, n_units)."""
    spikes, starts, _ = spikes_and_starts()
    first, last = window[0] / 1000, window[1] / 1000
    counts = [
        [sum(start + first <= time < start + last for time in times) for times in spikes]
        for start in starts
    ]
    return np.array(counts) / (last - first)


def averages(values: np.ndarray, shown: list[int]) -> np.ndarray:
    order = list(dict.fromkeys(shown))
    return np.stack([values[np.array(shown) == image].mean(axis=0) for image in order])


@pytest.mark.parametrize(("column", "templates"), [("stimulus_id", "images"), ("frame", "series")])
def test_rates_in_a_window_and_templates(tmp_path, column, templates):
    _, _, shown = spikes_and_starts()
    values = [float(image) for image in shown] if column == "frame" else None
    write_nwb(tmp_path / "a.nwb", column, values, templates)
    read = import_path(tmp_path / "a.nwb", tmp_path / "out", window=(50.0, 200.0))
    np.testing.assert_allclose(read.averages, averages(rates((50, 200)), shown), rtol=1e-5)
    prefix = "" if column == "frame" else "im"
    assert read.stimulus_ids == tuple(f"{prefix}{image}" for image in dict.fromkeys(shown))
    assert set(read.repetition_counts().ravel()) == {N_REPETITIONS}
    assert (read.site_ids, read.regions) == (("10", "11", "12"), REGIONS)
    assert read.site_labels == {"animal": ("monkey A",) * 3, "session": ("day1",) * 3}
    assert (read.units, read.normalised, read.time_window_ms) == ("spikes/s", False, (50, 200))
    for name, path in zip(read.stimulus_ids, read.stimulus_paths, strict=True):
        with Image.open(path) as image:
            expected = coarse_images(N_IMAGES)[int(name.removeprefix("im"))]
            np.testing.assert_array_equal(np.asarray(image), expected)
    assert validate_recordings(tmp_path / "out") == []


def test_rates_are_less_those_to_a_blank(tmp_path, caplog):
    _, _, shown = spikes_and_starts()
    write_nwb(tmp_path / "a.nwb", values=["blank" if s == 5 else f"im{s}" for s in shown])
    read = import_path(tmp_path / "a.nwb", tmp_path / "out", window=(0.0, 100.0))
    all_rates, kept = rates((0, 100)), np.array(shown) != 5
    expected = averages(
        all_rates[kept] - all_rates[~kept].mean(axis=0), [s for s in shown if s != 5]
    )
    np.testing.assert_allclose(read.averages, expected, rtol=1e-5, atol=1e-5)
    assert read.n_stimuli == N_IMAGES - 1
    assert read.normalised
    assert "rates are less those to 4 blank presentations ('blank')" in caplog.text


def test_images_of_the_user(tmp_path):
    write_nwb(tmp_path / "a.nwb", templates="none")
    names = [f"im{place}.png" for place in range(N_IMAGES)]
    save_images(tmp_path / "pictures", names, coarse_images(N_IMAGES))
    command = ["recordings", "import", tmp_path / "a.nwb", "--window", 50, 150]
    run = nrp_onnx(*command, "-o", tmp_path / "out")
    assert_one_line_error(run, "--images: the images are not in the file")
    run = nrp_onnx(*command, "--images", tmp_path / "pictures", "-o", tmp_path / "out")
    assert run.returncode == 0, run.stderr
    (tmp_path / "pictures" / "im2.png").unlink()
    run = nrp_onnx(*command, "--images", tmp_path / "pictures", "-o", tmp_path / "again")
    assert_one_line_error(run, "1 of the 6 images that a.nwb names are missing; expected 'im2'")


def test_what_is_not_clear_is_asked_for_in_one_line(tmp_path):
    write_nwb(tmp_path / "a.nwb", regions=False, second_table=True)
    command = ["recordings", "import", tmp_path / "a.nwb", "-o", tmp_path / "out"]
    assert_one_line_error(nrp_onnx(*command), "--window: the format nwb needs more")
    assert_one_line_error(nrp_onnx(*command, "--window", 9, 9), "--window: the window is empty")
    command += ["--window", 50, 150]
    assert_one_line_error(
        nrp_onnx(*command), "2 tables name images", "Name one, as --key image_presentations"
    )
    command += ["--key", "other"]
    assert_one_line_error(nrp_onnx(*command), "does not say where its units are", "--region V4")
    run = nrp_onnx(*command, "--region", "IT")
    assert run.returncode == 0, run.stderr


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 3])


def link_out(path: Path) -> None:
    with h5py.File(path, "a") as file:
        del file["units/spike_times"]
        file["units/spike_times"] = h5py.ExternalLink("/etc/other.h5", "/x")


def no_spikes(path: Path) -> None:
    with h5py.File(path, "a") as file:
        del file["units/spike_times"]


def unknown_image(path: Path) -> None:
    with h5py.File(path, "a") as file:
        file["intervals/image_presentations/stimulus_id"][3] = "im77"


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (truncate, "a.nwb: this file cannot be read; expected a whole NWB (HDF5) file"),
        (link_out, "'/units/spike_times' leads out of the file"),
        (no_spikes, "a.nwb: this file cannot be read; expected a whole NWB file; found TypeError"),
        (unknown_image, "1 of 7 images are not among the templates; expected 'im77'"),
    ],
)
def test_damaged_files_are_refused_in_one_line(tmp_path, damage, says):
    write_nwb(tmp_path / "a.nwb")
    damage(tmp_path / "a.nwb")
    run = nrp_onnx(
        "recordings", "import", tmp_path / "a.nwb", "--window", 50, 150, "-o", tmp_path / "out"
    )
    assert_one_line_error(run, says)
    assert not (tmp_path / "out").exists()
