"""Arrays of MATLAB, HDF5 and CSV files import as the same array in .npy does."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import scipy.io

from nrp_onnx.errors import OptionError, RecordingsError
from tests.recordings.array_parts import run


def matlab_7(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """As MATLAB's save -v7.3: a header of 512 bytes, and each array with its axes in reverse."""
    with h5py.File(path, "w", userblock_size=512) as file:
        for name, array in arrays.items():
            data = file.create_dataset(name, data=array.T)
            data.attrs["MATLAB_class"] = np.bytes_("double")
        text = file.create_dataset("note", data=np.array([[104], [105]], np.uint16))
        text.attrs["MATLAB_class"] = np.bytes_("char")
        sparse = file.create_group("sparse")
        sparse.attrs["MATLAB_sparse"] = np.uint64(3)
        sparse.create_dataset("data", data=np.ones(3))
        file.create_group("#refs#").create_dataset("a", data=np.ones(3))
    with path.open("r+b") as raw:
        raw.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(124) + b"\0\2IM")


def matlab_5(path: Path, arrays: dict[str, np.ndarray]) -> None:
    scipy.io.savemat(path, {**arrays, "note": "hi"}, do_compression=True)


def hdf5(path: Path, arrays: dict[str, np.ndarray]) -> None:
    with h5py.File(path, "w") as file:
        for name, array in arrays.items():
            file.create_dataset(f"session/{name}", data=array)
        file.create_dataset("note", data="hi")


Writer = Callable[[Path, dict[str, np.ndarray]], None]
WRITERS: list[tuple[str, Writer, str]] = [
    ("rates.mat", matlab_7, ""),
    ("rates.mat", matlab_5, ""),
    ("rates.h5", hdf5, "session/"),
    ("rates.hdf5", hdf5, "session/"),
]


@pytest.mark.parametrize(("name", "write", "group"), WRITERS)
def test_a_file_of_one_array_needs_no_key(parts, name, write, group):
    folder, array = parts
    write(folder / name, {"rates": array})
    read = run(folder, name)
    np.testing.assert_allclose(read.averages, np.nanmean(array, axis=2).T, rtol=1e-6)


@pytest.mark.parametrize(("name", "write", "group"), WRITERS)
def test_an_array_of_several_is_named_by_its_key(parts, name, write, group):
    folder, array = parts
    write(folder / name, {"rates": array, "blank": np.ones((2, 4))})
    with pytest.raises(OptionError, match=r"the file holds 2 arrays; .*rates 3x5x4"):
        run(folder, name)
    with pytest.raises(OptionError, match=r"no such array of numbers; .*rates.*found 'spikes'"):
        run(folder, name, key="spikes")
    with pytest.raises(OptionError, match=r"no such array of numbers"):
        run(folder, name, key="note")
    read = run(folder, name, key=f"{group}rates")
    np.testing.assert_allclose(read.averages, np.nanmean(array, axis=2).T, rtol=1e-6)


@pytest.mark.parametrize("header", ["", "a,b,c,d,e\n"])
def test_a_csv_matrix(parts, header):
    folder, array = parts
    matrix = np.nanmean(array, axis=2)
    lines = [",".join(repr(float(number)) for number in row) for row in matrix]
    lines[1] = ",".join(["", " ", *lines[1].split(",")[2:]])
    (folder / "rates.csv").write_text(header + "\n".join(lines) + "\n")
    read = run(folder, "rates.csv", axes=("site", "stimulus"))
    matrix[1, :2] = np.nan
    np.testing.assert_allclose(read.averages, matrix.T, rtol=1e-6)


def write(text: str) -> Callable[[Path], object]:
    return lambda path: path.write_text(text)


def half(write_whole: Writer) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        write_whole(path, {"rates": np.random.default_rng(0).normal(size=(3, 5, 400))})
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])

    return damage


def texts_only(path: Path) -> None:
    scipy.io.savemat(path, {"note": "hi", "cells": np.array([np.ones(2), "x"], object)})


ERRORS: dict[str, tuple[str, Callable[[Path], object], dict[str, Any], type[Exception], str]] = {
    "a name in a matrix": (
        "r.csv", write("1,2\nim01,4\n"), {}, RecordingsError,
        r"r\.csv: field 1 of row 2 is no number; .*found 'im01'\. Leave out columns of names",
    ),
    "rows of different lengths": (
        "r.csv", write("1,2\n3\n"), {}, RecordingsError,
        r"r\.csv: row 2 does not fit the first; expected 2 fields; found 1",
    ),
    "no numbers": ("r.csv", write("a,b\n"), {}, RecordingsError, r"r\.csv: the matrix is empty"),
    "an empty file": ("r.csv", write(""), {}, RecordingsError, r"r\.csv: the matrix is empty"),
    "no text": (
        "r.csv", lambda path: path.write_bytes(b"\xff\xfe\x00"), {}, RecordingsError,
        r"r\.csv: this array cannot be read; expected a whole CSV file in UTF-8",
    ),
    "a key for CSV": (
        "r.csv", write("1,2\n"), {"key": "x"}, OptionError, r"--key: a CSV file has no keys",
    ),
    "half of MATLAB 7.3": (
        "r.mat", half(matlab_7), {}, RecordingsError, r"r\.mat: this array cannot be read",
    ),
    "half of MATLAB 5": (
        "r.mat", half(matlab_5), {}, RecordingsError,
        r"r\.mat: this array cannot be read; expected a whole MATLAB file",
    ),
    "half of HDF5": (
        "r.h5", half(hdf5), {}, RecordingsError,
        r"r\.h5: this array cannot be read; expected a whole HDF5 file",
    ),
    "no MATLAB file": (
        "r.mat", write("hello"), {}, RecordingsError, r"r\.mat: this array cannot be read",
    ),
    "no arrays of numbers": (
        "r.mat", texts_only, {}, RecordingsError, r"r\.mat: the file holds no array of numbers",
    ),
    "complex numbers": (
        "r.mat", lambda path: scipy.io.savemat(path, {"z": np.ones((2, 5)) * 1j}), {},
        RecordingsError, r"r\.mat: these are no responses; expected an array of real numbers",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ERRORS)
def test_files_that_cannot_be_used_are_refused_in_one_line(parts, name):
    folder, _ = parts
    file, damage, options, kind, says = ERRORS[name]
    damage(folder / file)
    with pytest.raises(kind, match=says) as raised:
        run(folder, file, axes=("site", "stimulus"), **options)
    assert "\n" not in str(raised.value)
    assert not (folder / "out").exists()
