"""HDF5 files of strangers: opened so that nothing outside the file is read."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nrp_onnx.errors import RecordingsError
from nrp_onnx.packages import HDF5_FIX, imported

if TYPE_CHECKING:
    import h5py

_SIGNATURE = b"\x89HDF\r\n\x1a\n"
#: MATLAB v7.3 has a header of this many bytes before it.
_HEADER = 512


def is_hdf5(path: Path) -> bool:
    """Whether a file begins as HDF5 does, or holds that behind a header, as MATLAB v7.3 does."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        if file.read(len(_SIGNATURE)) == _SIGNATURE:
            return True
        file.seek(_HEADER)
        return file.read(len(_SIGNATURE)) == _SIGNATURE


def top_names(path: Path) -> frozenset[str]:
    """The names in the root of an HDF5 file; none of any other file, or without h5py."""
    if not is_hdf5(path):
        return frozenset()
    try:
        import h5py

        with h5py.File(path, "r") as file:
            return frozenset(file)
    except (ImportError, OSError, RuntimeError, KeyError):
        return frozenset()


@contextmanager
def open_hdf5(path: Path, kind: str = "HDF5 file") -> Iterator["h5py.File"]:
    """Open an HDF5 file.

    Args:
        kind: what a whole file would be, for messages.

    Raises:
        RecordingsError: if it is not there or damaged, also while the block reads from it.
        OptionError: if h5py is not installed.
    """
    if not path.is_file():
        raise RecordingsError("no such file", where=path, expected=f"a {kind}")
    h5py = imported("h5py", HDF5_FIX)
    try:
        with h5py.File(path, "r") as file:
            yield file
    except (OSError, RuntimeError) as error:
        # What HDF5 cannot read it reports without a file name.
        if getattr(error, "filename", None) is not None:
            raise
        raise RecordingsError(
            "this file cannot be read",
            where=path,
            expected=f"a whole {kind}",
            found=f"{path.stat().st_size} bytes ({error})",
            fix="If it was downloaded, download it again.",
        ) from None


def checked(item: Any, path: Path) -> Any:
    """A data set or group of an HDF5 file, if its numbers are inside that file.

    Raises:
        RecordingsError: for a data set that HDF5 would read from other files.
    """
    stored = "external storage" if getattr(item, "external", None) else None
    if getattr(item, "is_virtual", False):
        stored = "a virtual data set"
    if stored:
        raise _outside(path, str(item.name), stored)
    return item


def child(group: Any, name: str, path: Path) -> Any:
    """What a group holds under a name; None if there is nothing.

    Args:
        name: may have steps, as ``units/spike_times``.

    Raises:
        RecordingsError: if a link leads out of the file, or the numbers lie outside of it.
    """
    h5py = imported("h5py", HDF5_FIX)
    for step in name.strip("/").split("/"):
        if not isinstance(group, h5py.Group):
            return None
        link = group.get(step, getlink=True)
        if isinstance(link, h5py.ExternalLink):
            raise _outside(path, f"{group.name.rstrip('/')}/{step}", f"a link to {link.filename!r}")
        if isinstance(link, h5py.SoftLink):
            # The steps of its own path may lead out.
            start = group.file if link.path.startswith("/") else group
            group = None if link.path in (".", "/") else child(start, link.path, path)
        else:
            group = group.get(step)
        if group is None:
            return None
    return checked(group, path)


def dataset(file: Any, name: str, path: Path) -> "h5py.Dataset":
    """The data set of a name.

    Raises:
        RecordingsError: if there is none, or it leads out of the file.
    """
    found = child(file, name, path)
    if not hasattr(found, "shape"):
        raise RecordingsError(
            f"the file has no data set {name}",
            where=path,
            expected=name,
            found=", ".join(sorted(map(repr, file))[:8]) or "an empty file",
        )
    return found


def matlab_texts(file: "h5py.File", name: str, path: Path) -> tuple[str, ...]:
    """The texts of a cell array of MATLAB v7.3: references to arrays of UTF-16 codes.

    Raises:
        RecordingsError: if it is no such cell array.
    """
    cells = dataset(file, name, path)
    h5py = imported("h5py", HDF5_FIX)
    if cells.dtype != h5py.ref_dtype:
        raise RecordingsError(
            f"{name} holds no texts", where=path, expected="a cell array", found=cells.dtype
        )
    texts = []
    for reference in cells[...].ravel():
        text = checked(file[reference], path) if reference else None
        if text is None or text.dtype.kind != "u":
            raise RecordingsError(
                f"a cell of {name} is no text", where=path, expected="characters", found=text
            )
        # MATLAB writes an empty text as its two lengths.
        empty = "MATLAB_empty" in text.attrs
        texts.append("" if empty else np.asarray(text[...], "<u2").tobytes().decode("utf-16-le"))
    return tuple(texts)


def _outside(path: Path, name: str, found: str) -> RecordingsError:
    return RecordingsError(
        f"{name!r} leads out of the file",
        where=path,
        expected="numbers inside the file",
        found=found,
        fix="Copy it into one file, such as with h5repack.",
    )
