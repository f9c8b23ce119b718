"""Volumes of fMRI in NIfTI files: masks whole, series one volume at a time."""

import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from nrp_onnx.errors import NrpOnnxError, RecordingsError
from nrp_onnx.packages import imported

_FIX = "Run: pip install 'nrp-onnx[fmri]'."
_SUFFIXES = (".nii", ".nii.gz")


def nifti_shape(path: Path) -> tuple[int, ...]:
    """The shape of an image, from its header.

    Raises:
        RecordingsError: if it is no whole NIfTI file.
        OptionError: if nibabel is not installed.
    """
    return tuple(int(size) for size in _load(path).shape)


def read_volume(path: Path) -> np.ndarray:
    """A volume, such as a mask, as numbers of the file's axes (x, y, z).

    Raises:
        RecordingsError: if it is no whole NIfTI file of three axes.
    """
    image = _load(path)
    if len(image.shape) != 3:
        raise RecordingsError(
            "this is no volume", where=path, expected="three axes", found=image.shape
        )
    try:
        return np.asarray(image.dataobj)
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise _damaged(path, error) from None


def read_series(path: Path) -> Iterator[np.ndarray]:
    """The volumes of a series, one at a time: float64 arrays of shape (x, y, z).

    A compressed file is unpacked as a stream, so that memory holds one volume only.

    Raises:
        RecordingsError: if it is no whole NIfTI file of four axes.
    """
    image = _load(path)
    if len(image.shape) != 4:
        raise RecordingsError(
            "this is no series of volumes", where=path, expected="four axes", found=image.shape
        )
    proxy = image.dataobj
    shape = image.shape[:3]
    n_bytes = int(np.prod(shape)) * proxy.dtype.itemsize
    slope, intercept = float(proxy.slope), float(proxy.inter)
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            file.seek(proxy.offset)
            for number in range(image.shape[3]):
                data = file.read(n_bytes)
                if len(data) < n_bytes:
                    raise EOFError(f"it ends in volume {number} of {image.shape[3]}")
                volume = np.frombuffer(data, proxy.dtype).reshape(shape, order="F")
                yield volume * slope + intercept
    except (OSError, EOFError, zlib.error) as error:
        raise _damaged(path, error) from None


def _load(path: Path) -> Any:
    if not path.is_file():
        raise RecordingsError("no such file", where=path, expected=f"a file {_SUFFIXES[1]}")
    nibabel = imported("nibabel", _FIX)
    if not path.name.endswith(_SUFFIXES):
        raise RecordingsError(
            "this is no NIfTI file",
            where=path,
            expected=f"a file {' or '.join(_SUFFIXES)}",
            found=path.suffix,
        )
    try:
        return nibabel.Nifti1Image.from_filename(path)
    except NrpOnnxError:
        raise
    except Exception as error:  # nibabel has errors of its own, besides those of gzip and NumPy
        raise _damaged(path, error) from None


def _damaged(path: Path, error: Exception) -> RecordingsError:
    return RecordingsError(
        "this file cannot be read",
        where=path,
        expected="a whole NIfTI file",
        found=f"{path.stat().st_size} bytes ({type(error).__name__}: {error})",
        fix="If it was downloaded, download it again.",
    )
