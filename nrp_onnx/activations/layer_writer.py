"""Writes the file of a layer: ranges of stimuli first, each a whole file, joined at the end.

A range is an Arrow IPC file under the hidden folder ``.part``. It gets its name when all of it is on
disk, so a killed run leaves whole ranges, and a temporary file that the next run removes. The layer's
Parquet file has row groups of a fixed size, so its bytes do not depend on where the ranges lay.
"""

import os
import re
import secrets
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import ipc

from nrp_onnx.activations.layer_file import activations_schema, record_batch, rows_a_group
from nrp_onnx.files import UNFINISHED, sha256_of_json

#: Seconds of work in a range of a run in this process, about: what a killed run computes again.
RANGE_SECONDS = 20.0

_FOLDER = ".part"
#: The name of a range: its first stimulus, and the one after its last.
_RANGE = re.compile(r"(\d{9,})-(\d{9,})\.arrow")

#: Activations hardly compress, and statistics of theirs mean nothing.
_WRITING = {"use_dictionary": False, "compression": "none", "write_statistics": False}

#: Places of stimuli: of the first, and of the one after the last.
Range = tuple[int, int]


class LayerWriter:
    """Writes a layer's Parquet file in row groups of `rows_a_group`, whatever comes at a time.

    Args:
        facts: what the file says of itself.
    """

    def __init__(self, path: Path, n_features: int, facts: dict[str, Any]) -> None:
        self._schema = activations_schema(n_features, facts)
        self._rows_a_group = rows_a_group(n_features)
        self._ids: list[str] = []
        self._rows = np.empty((0, n_features), np.float32)
        self._writer = pq.ParquetWriter(path, self._schema, **_WRITING)

    def write(self, stimulus_ids: Sequence[str], activations: np.ndarray) -> None:
        """Append rows: float32 (n, n_features)."""
        ids = [*self._ids, *stimulus_ids]
        rows = np.concatenate([self._rows, activations]) if self._ids else activations
        n_whole = len(ids) - len(ids) % self._rows_a_group
        self._append(ids[:n_whole], rows[:n_whole])
        # A copy, so that a few rows do not keep the whole array in memory.
        self._ids, self._rows = ids[n_whole:], rows[n_whole:].copy()

    def close(self) -> None:
        """Write what is left over, and close the file."""
        self._append(self._ids, self._rows)
        self._writer.close()

    def _append(self, ids: Sequence[str], rows: np.ndarray) -> None:
        if ids:
            table = pa.Table.from_batches([record_batch(self._schema, ids, rows)])
            self._writer.write_table(table, self._rows_a_group)


@dataclass(frozen=True)
class LayerRanges:
    """The ranges of a layer on disk.

    Attributes:
        path: of the Parquet file that they become.
        n_features: numbers a stimulus.
        facts: what that file says of itself. Ranges that were computed for other facts are not taken.
    """

    path: Path
    n_features: int
    facts: dict[str, Any]

    @property
    def folder(self) -> Path:
        return _folder_of(self.path) / sha256_of_json(self.facts)[:16]

    def file(self, places: Range) -> Path:
        """The file of a range."""
        return self.folder / f"{places[0]:09d}-{places[1]:09d}.arrow"

    def found(self) -> set[Range]:
        """The ranges that are whole on disk."""
        whole = [path.name for path in _content(self.folder) if _is_whole(path)]
        names = [name for text in whole if (name := _RANGE.fullmatch(text))]
        return {(int(name[1]), int(name[2])) for name in names}

    def clear(self, keep: Sequence[Range]) -> None:
        """Remove all other ranges, and what a killed run did not finish."""
        kept = {self.folder, *map(self.file, keep)}
        for path in [*_content(_folder_of(self.path)), *_content(self.folder)]:
            if path not in kept:
                _remove(path)

    def stimulus_ids(self, ranges: Sequence[Range]) -> list[str]:
        """The stimuli in ranges, in order."""
        # Of a memory map, only the pages with the ids are read.
        return [
            name
            for places in ranges
            for batch in _batches(pa.memory_map(str(self.file(places))))
            for name in batch["stimulus_id"].to_pylist()
        ]

    def rows(self, ranges: Sequence[Range]) -> Iterator[tuple[list[str], np.ndarray]]:
        """Ids of a few stimuli, and their activations: float32 (k, n_features)."""
        for places in ranges:
            for batch in _batches(pa.OSFile(str(self.file(places)))):
                flat = batch["activation"].flatten().to_numpy()
                yield batch["stimulus_id"].to_pylist(), flat.reshape(-1, self.n_features)


def finished_ranges(layers: Sequence[LayerRanges]) -> list[Range]:
    """The ranges that are on disk for all layers, in order; what else is there is removed."""
    found = sorted(set[Range].intersection(*(layer.found() for layer in layers)))
    finished: list[Range] = []
    for places in found:
        if not finished or places[0] >= finished[-1][1]:
            finished.append(places)
    for layer in layers:
        layer.clear(finished)
    return finished


def gaps(ranges: Sequence[Range], n_stimuli: int) -> list[Range]:
    """What lies between ranges, before the first and after the last."""
    starts = [0, *(end for _, end in ranges)]
    ends = [*(start for start, _ in ranges), n_stimuli]
    return [(start, end) for start, end in zip(starts, ends, strict=True) if start < end]


def join_ranges(ranges: Sequence[Range], layer: LayerRanges) -> None:
    """Write a layer's Parquet file and remove its ranges; memory holds a row group at a time.

    Raises:
        OSError: if it cannot be written.
    """
    part = _temporary(_folder_of(layer.path))
    try:
        writer = LayerWriter(part, layer.n_features, layer.facts)
        for ids, rows in layer.rows(ranges):
            writer.write(ids, rows)
        writer.close()
        _sync(part)
        part.replace(layer.path)
    finally:
        part.unlink(missing_ok=True)
    _sync_folder(layer.path.parent)
    remove_ranges(layer.path)


def remove_ranges(path: Path) -> None:
    """Remove what is left of the ranges of a layer whose file is in its place."""
    folder = _folder_of(path)
    _remove(folder)
    with suppress(OSError):  # no such folder, or ranges of other layers in it
        folder.parent.rmdir()


class RangeWriter:
    """Writes the ranges of several layers side by side; a context manager.

    Args:
        start: the place of the first stimulus.
        batch: a range has a whole number of so many stimuli, as they are computed together. So a run
            that goes on has the batches of one that was not killed.
        seconds: after which a range ends.

    Attributes:
        finished: the ranges that are on disk.
    """

    def __init__(
        self, layers: Sequence[LayerRanges], start: int, batch: int, seconds: float
    ) -> None:
        self.finished: list[Range] = []
        self._layers, self._batch, self._seconds = layers, batch, seconds
        self._begin(start)

    def __enter__(self) -> "RangeWriter":
        return self

    def __exit__(self, *_: object) -> None:
        for file in self._files:
            file.remove()

    def write(self, stimulus_ids: Sequence[str], outputs: Sequence[np.ndarray], end: int) -> None:
        """Take rows: float32 (n, n_features) of each layer.

        Args:
            end: the place after their last stimulus.
        """
        for file, rows in zip(self._opened(), outputs, strict=True):
            file.write(stimulus_ids, rows)
        self._n_rows += len(stimulus_ids)
        if self._n_rows % self._batch == 0 and time.perf_counter() - self._begun >= self._seconds:
            self._end(end)

    def finish(self, end: int) -> None:
        """End the last range.

        Args:
            end: the place after its last stimulus, which may be one that was left out.
        """
        if end > self._start:
            self._end(end)

    def _begin(self, start: int) -> None:
        self._start, self._n_rows, self._begun = start, 0, time.perf_counter()
        self._files: list[_RangeFile] = []

    def _opened(self) -> "list[_RangeFile]":
        if not self._files:
            self._files = [_RangeFile(layer) for layer in self._layers]
        return self._files

    def _end(self, end: int) -> None:
        places = self._start, end
        for layer, file in zip(self._layers, self._opened(), strict=True):
            file.finish(layer.file(places))
        self.finished.append(places)
        self._begin(end)


class _RangeFile:
    """A range of one layer while it is written, under another name than it will have."""

    def __init__(self, layer: LayerRanges) -> None:
        self._schema = activations_schema(layer.n_features, layer.facts)
        self._rows_a_group = rows_a_group(layer.n_features)
        self._path = _temporary(layer.folder)
        # PyArrow's own files say less of why they cannot be written.
        self._file = self._path.open("wb")
        self._writer = ipc.new_file(self._file, self._schema)

    def write(self, stimulus_ids: Sequence[str], activations: np.ndarray) -> None:
        for start in range(0, len(stimulus_ids), self._rows_a_group):
            rows = slice(start, start + self._rows_a_group)
            self._writer.write_batch(
                record_batch(self._schema, stimulus_ids[rows], activations[rows])
            )

    def finish(self, path: Path) -> None:
        self._writer.close()
        self._file.close()
        _sync(self._path)
        self._path.replace(path)

    def remove(self) -> None:
        with suppress(OSError):  # what is left in the buffer does not fit on the disk, either
            self._file.close()
        self._path.unlink(missing_ok=True)


def _folder_of(path: Path) -> Path:
    """Of all that becomes a layer's file."""
    return path.parent / _FOLDER / path.stem


def _content(folder: Path) -> list[Path]:
    return list(folder.iterdir()) if folder.is_dir() else []


def _batches(file: pa.NativeFile) -> Iterator[pa.RecordBatch]:
    with file, ipc.open_file(file) as reader:
        for number in range(reader.num_record_batches):
            yield reader.get_batch(number)


def _is_whole(path: Path) -> bool:
    try:
        with pa.OSFile(str(path)) as file, ipc.open_file(file):
            return True
    except (OSError, pa.ArrowInvalid):
        return False


def _temporary(folder: Path) -> Path:
    """A file in a folder whose name no other process has, on whatever machine."""
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f".{secrets.token_hex(8)}{UNFINISHED}"


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    """See what was written to a file on disk."""
    with path.open("r+b") as file:
        os.fsync(file.fileno())


def _sync_folder(path: Path) -> None:
    """See the names in a folder on disk, where a folder can be opened."""
    if os.name == "posix":
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
