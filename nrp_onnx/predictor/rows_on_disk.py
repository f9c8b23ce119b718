"""Arrays of all images that lie on disk, so that more images need no more memory.

Rows are read and written by calls to the system. Mapped into memory, each read of an image would count
as a megabyte: the system maps the large pages of its cache as a whole.
"""

import tempfile
import threading
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch


class RowsOnDisk:
    """A float32 array in a file that has no name and goes with the array; rows alone are indexed.

    Args:
        shape: of the array.
        folder: of the file.
    """

    dtype = np.dtype(np.float32)

    def __init__(self, shape: tuple[int, ...], folder: Path) -> None:
        self.shape = shape
        self._row_bytes = 4 * int(np.prod(shape[1:]))
        # Closed when the array is no longer used.
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115
        self._file.truncate(shape[0] * self._row_bytes)
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Any) -> Any:
        """Rows by a slice or by places; of a tensor of places, a tensor."""
        if isinstance(rows, torch.Tensor):
            return torch.from_numpy(self[rows.numpy()])
        places = self._places(rows)
        found = np.empty((len(places), *self.shape[1:]), np.float32)
        for start, first, n in _runs(places):
            with self._lock:
                self._file.seek(first * self._row_bytes)
                self._file.readinto(found[start : start + n].data)
        return found

    def __setitem__(self, rows: Any, values: np.ndarray) -> None:
        """Replace rows."""
        places = self._places(rows)
        shape = (len(places), *self.shape[1:])
        given = np.ascontiguousarray(np.broadcast_to(values, shape), np.float32)
        for start, first, n in _runs(places):
            with self._lock:
                self._file.seek(first * self._row_bytes)
                self._file.write(given[start : start + n].data)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        found: np.ndarray = self[:]
        return found if dtype is None else found.astype(dtype)

    def to(self, device: str | torch.device) -> "RowsOnDisk | torch.Tensor":
        """Itself for the CPU; else a tensor in the memory of the device."""
        if torch.device(device).type == "cpu":
            return self
        return torch.from_numpy(np.asarray(self)).to(device)

    def __reduce__(self) -> Any:
        # Another process, or machine, gets an array in memory.
        return np.array, (np.asarray(self),)

    def _places(self, rows: Any) -> np.ndarray:
        if isinstance(rows, slice):
            return np.arange(*rows.indices(len(self)))
        places: np.ndarray = np.asarray(rows, np.int64)
        return places


def rows_of_images(shape: tuple[int, ...], folder: Path | None) -> "np.ndarray | RowsOnDisk":
    """Zeros, float32 of this shape: in a file of the folder, or in memory where there is none."""
    return np.zeros(shape, np.float32) if folder is None else RowsOnDisk(shape, folder)


def _runs(places: np.ndarray) -> Iterator[tuple[int, int, int]]:
    """Where runs of neighbouring places begin, their first place, and how many they are."""
    starts = np.concatenate([[0], np.flatnonzero(np.diff(places) != 1) + 1, [len(places)]])
    for start, end in pairwise(starts):
        if end > start:
            yield int(start), int(places[start]), int(end - start)
