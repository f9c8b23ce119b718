"""Parts that do not fit each other are refused in one line, and nothing is written."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nrp_onnx.errors import OptionError, OutputError, RecordingsError
from tests.recordings.array_parts import run

Damage = Callable[[Path, np.ndarray], object]


def save_array(change: Callable[[np.ndarray], np.ndarray]) -> Damage:
    def damage(folder: Path, array: np.ndarray) -> None:
        np.save(folder / "rates.npy", change(array.copy()))

    return damage


def put(where: Any, number: float) -> Callable[[np.ndarray], np.ndarray]:
    def change(array: np.ndarray) -> np.ndarray:
        array[where] = number
        return array

    return change


def edit(name: str, old: str, new: str) -> Damage:
    def damage(folder: Path, array: np.ndarray) -> None:
        text = (folder / name).read_text()
        assert old in text
        (folder / name).write_text(text.replace(old, new))

    return damage


def nothing(folder: Path, array: np.ndarray) -> None:
    pass


def take(name: str) -> Damage:
    return lambda folder, array: (folder / name).unlink()


#: What is done to good parts, with which options, and what the one line about it says.
ERRORS: dict[str, tuple[Damage, dict[str, Any], type[Exception], str]] = {
    "a stimulus too few": (
        save_array(lambda array: array[:, :4]),
        {},
        RecordingsError,
        r"rates\.npy: the stimulus axis does not fit stimuli\.csv; expected 5 along the stimulus "
        r"axis; found 4",
    ),
    "a stimulus too few for the images": (
        save_array(lambda array: array[:, :4]),
        {"stimuli": None},
        RecordingsError,
        r"rates\.npy: the stimulus axis does not fit pictures; expected 5 .*; found 4",
    ),
    "a site too many": (
        save_array(lambda array: np.concatenate([array, array[:1]])),
        {"region": None, "sites": "sites.csv"},
        RecordingsError,
        r"rates\.npy: the site axis does not fit sites\.csv; expected 3 .*; found 4",
    ),
    "an image that is not there": (
        take("pictures/eel.png"),
        {},
        RecordingsError,
        r"pictures: 1 of the 5 images that .*stimuli\.csv names are missing; expected 'eel\.png'; "
        r"found 4 files, such as 'ant\.png'",
    ),
    "an image that does not open": (
        lambda folder, array: (folder / "pictures/eel.png").write_bytes(b"hello"),
        {},
        RecordingsError,
        r"pictures, eel\.png: the image does not open; expected a whole image.*found 5 bytes",
    ),
    "no images": (
        lambda folder, array: shutil.rmtree(folder / "pictures"),
        {},
        RecordingsError,
        r"pictures: no such images; expected a folder or a zip of images, or an HDF5 or Parquet file; found nothing",
    ),
    "two axes for three": (
        nothing,
        {"axes": ("site", "stimulus")},
        RecordingsError,
        r"rates\.npy: the array does not have the axes that --axes names; expected 2 axes "
        r"\(site, stimulus\); found 3, of the shape \(3, 5, 4\)",
    ),
    "an unknown axis": (
        nothing,
        {"axes": ("neuron", "stimulus", "repetition")},
        OptionError,
        r"--axes: these are no axes of responses; expected site, stimulus and.*"
        r"found neuron,stimulus,repetition",
    ),
    "an axis twice": (
        nothing,
        {"axes": ("site", "stimulus", "site")},
        OptionError,
        r"--axes: these are no axes of responses; .*found site,stimulus,site",
    ),
    "a stimulus_id twice": (
        edit("stimuli.csv", "s4,", "s3,"),
        {},
        RecordingsError,
        r"stimuli\.csv: a stimulus_id comes twice; .*found 's3'",
    ),
    "a file twice": (
        edit("stimuli.csv", "ant.png", "owl.png"),
        {},
        RecordingsError,
        r"stimuli\.csv: a filename comes twice; .*found 'owl\.png'",
    ),
    "two images of one stem": (
        lambda folder, array: shutil.copy(folder / "pictures/ant.png", folder / "pictures/cat.gif"),
        {"stimuli": None},
        RecordingsError,
        r"pictures: a file name without its suffix comes twice; .*found 'cat'",
    ),
    "a filename that climbs out": (
        edit("stimuli.csv", "ant.png", "../ant.png"),
        {},
        RecordingsError,
        r"stimuli\.csv: 1 filenames leave the folder of images; .*found '\.\./ant\.png'",
    ),
    "a site_id twice": (
        edit("sites.csv", "z,", "x,"),
        {"region": None, "sites": "sites.csv"},
        RecordingsError,
        r"sites\.csv: a site_id comes twice; .*found 'x'",
    ),
    "neither region nor sites": (
        nothing,
        {"region": None},
        OptionError,
        r"--region, --sites: .*expected exactly one of them; found neither",
    ),
    "both region and sites": (
        nothing,
        {"sites": "sites.csv"},
        OptionError,
        r"--region, --sites: .*expected exactly one of them; found both",
    ),
    "pickled objects": (
        lambda folder, array: np.save(
            folder / "rates.npy", array.astype(object), allow_pickle=True
        ),
        {},
        RecordingsError,
        r"rates\.npy: this array cannot be read; .*without pickled objects; found .*allow_pickle",
    ),
    "half a file": (
        lambda folder, array: (folder / "rates.npy").write_bytes(
            (folder / "rates.npy").read_bytes()[:300]
        ),
        {},
        RecordingsError,
        r"rates\.npy: this array cannot be read",
    ),
    "no array": (
        take("rates.npy"),
        {},
        RecordingsError,
        r"rates\.npy: no such file; expected a \.n",
    ),
    "text for numbers": (
        save_array(lambda array: array.astype(str)),
        {},
        RecordingsError,
        r"rates\.npy: these are no responses; expected an array of real numbers; found <U",
    ),
    "a key for .npy": (
        nothing,
        {"key": "rates"},
        OptionError,
        r"--key: only \.npz, \.mat and HDF5 files have keys; expected none; found 'rates'",
    ),
    "a dead site": (
        save_array(put(1, np.nan)),
        {},
        RecordingsError,
        r"rates\.npy: 1 of 3 sites have no response; .*found NaN only for 'V4_001'",
    ),
    "a stimulus never shown": (
        save_array(put((slice(None), 2), np.nan)),
        {},
        RecordingsError,
        r"rates\.npy: 1 of 5 stimuli have no response; .*found none of 's5'",
    ),
    "an infinite response": (
        save_array(put((0, 0, 0), np.inf)),
        {},
        RecordingsError,
        r"rates\.npy: 1 responses are infinite; .*found one of site V4_000 to 's3'",
    ),
    "a number beyond float32": (
        save_array(put((0, 0, 0), 1e300)),
        {},
        RecordingsError,
        r"rates\.npy: 1 responses are infinite",
    ),
}


@pytest.mark.parametrize("name", ERRORS)
def test_parts_that_do_not_fit_are_refused_in_one_line(parts, name):
    folder, array = parts
    damage, options, kind, says = ERRORS[name]
    damage(folder, array)
    options = {k: folder / v if k == "sites" else v for k, v in options.items()}
    with pytest.raises(kind, match=says) as raised:
        run(folder, **options)
    assert "\n" not in str(raised.value)
    assert not (folder / "out").exists()
    assert not list(folder.glob(".*"))


def test_several_arrays_without_a_key_are_named(parts):
    folder, array = parts
    np.savez(folder / "two.npz", first=array, second=array)
    with pytest.raises(
        OptionError, match=r"two\.npz: the file holds 2 arrays.*first, second.*--key"
    ):
        run(folder, "two.npz")
    with pytest.raises(OptionError, match=r"no such array; .*first, second; found 'third'"):
        run(folder, "two.npz", key="third")


def test_a_taken_folder_is_left_alone(parts):
    folder, _ = parts
    (folder / "out").mkdir()
    (folder / "out" / "thesis.txt").write_text("mine")
    with pytest.raises(OutputError, match="out: the place is taken"):
        run(folder)
    assert [path.name for path in (folder / "out").iterdir()] == ["thesis.txt"]
