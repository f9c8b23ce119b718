"""Arrays of responses from files, with their axes put in order."""

import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from nrp_onnx.errors import OptionError, RecordingsError
from nrp_onnx.recordings.matrix_files import READERS

AXES = ("stimulus", "repetition", "site")


def read_array(path: Path, key: str | None) -> np.ndarray:
    """Read an array of real numbers.

    Args:
        path: .npy, .npz, .mat (MATLAB), .h5 or .hdf5, or .csv.
        key: the array in a file that may hold several; None if there is only one.

    Raises:
        RecordingsError: if the file cannot be read, or holds pickled objects or other data.
        OptionError: if ``key`` does not fit the file.
    """
    if not path.is_file():
        raise RecordingsError(
            "no such file", where=path, expected="a .npy, .npz, .mat, .h5 or .csv file"
        )
    reader = READERS.get(path.suffix.lower(), _read_numpy)
    loaded = reader(path, key)
    if not isinstance(loaded, np.ndarray) or loaded.dtype.kind not in "iuf":
        raise RecordingsError(
            "these are no responses",
            where=path,
            expected="an array of real numbers",
            found=getattr(loaded, "dtype", type(loaded).__name__),
        )
    return loaded


def _read_numpy(path: Path, key: str | None) -> np.ndarray:
    """The array of a .npy or .npz file."""
    try:
        loaded = np.load(path, allow_pickle=False)
        if not isinstance(loaded, np.ndarray):
            with loaded:
                loaded = loaded[_array_name(loaded.files, key, path)]
        elif key is not None:
            raise OptionError(
                "only .npz, .mat and HDF5 files have keys",
                where="--key",
                expected="none",
                found=repr(key),
            )
    except (ValueError, EOFError, OSError, zipfile.BadZipFile, zlib.error) as error:
        raise RecordingsError(
            "this array cannot be read",
            where=path,
            expected="a whole .npy or .npz file of numbers, without pickled objects",
            found=error,
        ) from None
    array: np.ndarray = loaded
    return array


def _array_name(names: Sequence[str], key: str | None, path: Path) -> str:
    listed = ", ".join(names)
    if key is None:
        if len(names) != 1:
            raise OptionError(
                f"the file holds {len(names)} arrays",
                where=path,
                expected="one, or --key",
                found=listed or "none",
                fix="Name one with --key.",
            )
        return names[0]
    if key not in names:
        raise OptionError(
            "the file has no such array",
            where=path,
            expected=f"--key as one of {listed}",
            found=repr(key),
        )
    return key


def to_standard_axes(array: np.ndarray, axes: Sequence[str], path: Path) -> np.ndarray:
    """The array as (stimulus, repetition, site); where there are no repetitions, there is one.

    Args:
        axes: the name of each axis of ``array``, in order.

    Raises:
        OptionError: if the axes are not site, stimulus and perhaps repetition, once each.
        RecordingsError: if the array has another number of axes.
    """
    names = list(axes)
    if sorted(names) not in (sorted(AXES), ["site", "stimulus"]):
        raise OptionError(
            "these are no axes of responses",
            where="--axes",
            expected="site, stimulus and, where there is one, repetition, once each",
            found=",".join(names) or "none",
        )
    if array.ndim != len(names):
        raise RecordingsError(
            "the array does not have the axes that --axes names",
            where=path,
            expected=f"{len(names)} axes ({', '.join(names)})",
            found=f"{array.ndim}, of the shape {array.shape}",
        )
    if "repetition" not in names:
        array, names = array[..., None], [*names, "repetition"]
    return array.transpose([names.index(axis) for axis in AXES])
