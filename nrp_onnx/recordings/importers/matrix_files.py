"""Arrays of numbers from NumPy, MATLAB, HDF5 and CSV files."""

import csv
import io
import zipfile
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.io

from nrp_onnx.errors import OptionError, RecordingsError
from nrp_onnx.notes import logger
from nrp_onnx.packages import HDF5_FIX, imported
from nrp_onnx.recordings.importers.hdf5 import checked, is_hdf5

if TYPE_CHECKING:
    import h5py

_NUMERIC = ("double", "single", "int", "uint")


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
    reader = _READERS.get(path.suffix.lower(), _read_numpy)
    loaded = reader(path, key)
    if not isinstance(loaded, np.ndarray) or loaded.dtype.kind not in "iuf":
        raise RecordingsError(
            "these are no responses",
            where=path,
            expected="an array of real numbers",
            found=getattr(loaded, "dtype", type(loaded).__name__),
        )
    return loaded


def read_hdf5(path: Path, key: str | None) -> np.ndarray:
    """A data set of an HDF5 file, of MATLAB v7.3 with its axes as MATLAB shows them.

    MATLAB stores the first axis fastest, HDF5 the last: so the file itself has MATLAB's axes in
    reverse, which is undone here. HDF5 of other writers is taken as it is.

    Args:
        key: the path of the data set inside the file; None if only one holds numbers.

    Raises:
        RecordingsError: if the file is damaged.
        OptionError: if ``key`` does not name one data set, or h5py is not installed.
    """
    h5py = imported("h5py", HDF5_FIX)
    try:
        with h5py.File(path, "r") as file:
            found: dict[str, Any] = {}
            # Links out of the file are not followed here.
            file.visititems(
                lambda name, item: (
                    found.update({name: item})
                    if isinstance(item, h5py.Dataset) and not name.startswith("#")
                    else None
                )
            )
            whole_file = file.userblock_size > 0  # MATLAB's header is there
            reverse = {
                name: whole_file or "MATLAB_class" in item.attrs for name, item in found.items()
            }
            numeric = {
                name: item.shape[::-1] if reverse[name] else item.shape
                for name, item in found.items()
                if _is_numeric(item)
            }
            name = choose(numeric, key, path)
            array: np.ndarray = checked(found[name], path)[...]
    except (OSError, RuntimeError, KeyError) as error:
        raise _damaged(path, "HDF5 file", error) from None
    return array.T if reverse[name] else array


def read_matlab(path: Path, key: str | None) -> np.ndarray:
    """A variable of a .mat file of any version, with its axes as MATLAB shows them.

    Raises:
        RecordingsError: if the file is damaged, or the variable is sparse.
        OptionError: if ``key`` does not name one variable of numbers.
    """
    if is_hdf5(path):
        return read_hdf5(path, key)
    try:
        shapes = {
            name: shape for name, shape, kind in scipy.io.whosmat(path) if kind.startswith(_NUMERIC)
        }
        name = choose(shapes, key, path)
        array: np.ndarray = scipy.io.loadmat(path, variable_names=[name])[name]
    except (OptionError, RecordingsError):
        raise
    # The reader of scipy meets damage in many ways, among them IndexError and zlib.error.
    except Exception as error:
        raise _damaged(path, "MATLAB file", error) from None
    return array


def read_csv(path: Path, key: str | None) -> np.ndarray:
    """A matrix of numbers; an empty field or NaN is missing. A first line of texts is a header.

    Raises:
        RecordingsError: for a field that is no number, and lines of different lengths.
        OptionError: if there is a ``key``.
    """
    if key is not None:
        raise OptionError("a CSV file has no keys", where="--key", expected="none", found=repr(key))
    try:
        text = path.read_text(encoding="utf-8-sig")
        rows = [row for row in csv.reader(io.StringIO(text), strict=True) if row]
    except (UnicodeDecodeError, csv.Error) as error:
        raise _damaged(path, "CSV file in UTF-8", error) from None
    first = 1
    if rows and all(_number(field) is None for field in rows[0]):
        logger.warning("the first line of %s is taken as a header", path.name)
        del rows[0]
        first = 2
    if not rows:
        raise RecordingsError(
            "the matrix is empty", where=path, expected="a line of numbers or more", found="none"
        )
    matrix = np.empty((len(rows), len(rows[0])))
    for place, row in enumerate(rows):
        if len(row) != len(rows[0]):
            raise RecordingsError(
                f"row {place + first} does not fit the first",
                where=path,
                expected=f"{len(rows[0])} fields",
                found=len(row),
            )
        for column, field in enumerate(row):
            number = _number(field) if field.strip() else np.nan
            if number is None:
                raise RecordingsError(
                    f"field {column + 1} of row {place + first} is no number",
                    where=path,
                    expected="numbers only, an empty field or NaN where one is missing",
                    found=repr(field),
                    fix="Leave out columns of names.",
                )
            matrix[place, column] = number
    return matrix


def choose(shapes: dict[str, tuple[int, ...]], key: str | None, path: Path) -> str:
    """The array that ``key`` names, or the only one.

    Args:
        shapes: of the arrays in the file.

    Raises:
        RecordingsError: if there is no array.
        OptionError: if there are several and no key, or the key is not among them.
    """
    listed = ", ".join(f"{name} {'x'.join(map(str, shape))}" for name, shape in shapes.items())
    if not shapes:
        raise RecordingsError(
            "the file holds no array of numbers", where=path, expected="one or more", found="none"
        )
    if key is None and len(shapes) > 1:
        raise OptionError(
            f"the file holds {len(shapes)} arrays",
            where=path,
            expected="one, or --key",
            found=listed,
            fix="Name one with --key.",
        )
    name = next(iter(shapes)) if key is None else key.strip("/")
    if name not in shapes:
        raise OptionError(
            "the file has no such array of numbers",
            where=path,
            expected=f"--key as one of {listed}",
            found=repr(key),
        )
    return name


def _is_numeric(data: "h5py.Dataset") -> bool:
    """Whether a data set is an array of numbers to MATLAB, too.

    Its texts are stored as integers, its sparse matrices as several vectors.
    """
    if "MATLAB_sparse" in data.parent.attrs:
        return False
    kind = bytes(np.bytes_(data.attrs.get("MATLAB_class", b"double"))).decode()
    return data.dtype.kind in "iuf" and kind.startswith(_NUMERIC)


def _number(field: str) -> float | None:
    try:
        return float(field)
    except ValueError:
        return None


def _damaged(path: Path, kind: str, error: Exception) -> RecordingsError:
    return RecordingsError(
        "this array cannot be read", where=path, expected=f"a whole {kind}", found=error
    )


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


#: The reader of each kind of file; a .mat file is MATLAB v7.3, which is HDF5, or an older one.
_READERS: dict[str, Callable[[Path, str | None], np.ndarray]] = {
    ".mat": read_matlab,
    ".h5": read_hdf5,
    ".hdf5": read_hdf5,
    ".csv": read_csv,
}
#: Of the files that `read_array` takes.
SUFFIXES = frozenset((*_READERS, ".npy", ".npz"))
