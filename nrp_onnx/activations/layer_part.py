"""A layer's Parquet file while it grows, safe to kill at any moment.

A row group holds `ROWS` stimuli whatever the batch size. After each, a line in a journal beside the
file says where it ends, which stimuli it holds and the checksum of its bytes. A killed run leaves whole
row groups and at most a torn end, which is cut off.

Parquet keeps the places of all row groups in the writer's memory until the file is closed. A run that
goes on has a new writer, so it is given the old row groups again, and what it writes of them is thrown
away: it is in the file already. Neither the size of a page nor anything that Parquet says of it hangs
on the activations (plain encoding, no compression, no statistics), so zeros do in their stead.
"""

import json
import os
import sys
import zlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from io import RawIOBase
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from nrp_onnx.activations.store import WRITING, activations_schema, record_batch
from nrp_onnx.errors import OutputError

#: Stimuli a row group.
ROWS = 16

_FOLDER = ".part"


@dataclass(frozen=True)
class _Group:
    """A row group as the journal has it."""

    stimulus_ids: list[str]
    end: int
    crc32: int


class LayerPart:
    """The unfinished file of a layer, in a hidden folder beside its place.

    Args:
        path: where the finished file goes.
        n_features: numbers a stimulus.
        facts: what the finished file says of itself. A part that was left behind goes on only if
            it was begun with the same.
    """

    def __init__(self, path: Path, n_features: int, facts: dict[str, Any]) -> None:
        self.path = path
        self._n_features, self._facts = n_features, facts
        self._schema = activations_schema(n_features, facts)
        self._data = path.parent / _FOLDER / path.name
        self._journal_path = self._data.with_suffix(".jsonl")
        self._data.parent.mkdir(parents=True, exist_ok=True)
        self._groups = self._left_behind()

    @property
    def stimulus_ids(self) -> list[list[str]]:
        """The stimuli of each row group that a killed run left."""
        return [group.stimulus_ids for group in self._groups]

    def open(self, n_groups: int) -> None:
        """Go on after the first ``n_groups`` row groups; what comes after them is cut off."""
        kept = self._groups[:n_groups]
        lines = [self._facts, *map(asdict, kept)]
        self._journal_path.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
        self._journal = self._journal_path.open("a", encoding="utf-8")
        self._sink = _Sink(self._data, kept[-1].end if kept else 0)
        self._writer = pq.ParquetWriter(self._sink, self._schema, **WRITING)
        for group in kept:
            self._write(group.stimulus_ids, np.zeros((len(group.stimulus_ids), self._n_features)))
            if self._sink.position != group.end:
                raise OutputError(
                    "an interrupted extraction does not go on with this version of pyarrow",
                    where=self._data,
                    expected=f"a row group that ends at byte {group.end}",
                    found=self._sink.position,
                    fix=f"Delete the folder {self._data.parent}.",
                )

    def append(self, stimulus_ids: Sequence[str], activations: np.ndarray) -> None:
        """Append one row group: float32 (n, n_features)."""
        self._write(stimulus_ids, activations)
        group = _Group(list(stimulus_ids), self._sink.position, self._sink.crc32)
        self._sink.crc32 = 0
        self._journal.write(json.dumps(asdict(group)) + "\n")
        self._journal.flush()

    def finish(self) -> None:
        """Close the file, see it on disk and put it in its place."""
        self._writer.close()
        self._sink.sync()
        self._sink.close()
        self._journal.close()
        self._data.replace(self.path)
        _sync_folder(self.path.parent)
        self._journal_path.unlink()
        if not any(self._data.parent.iterdir()):
            self._data.parent.rmdir()

    def close(self) -> None:
        """Let go of the files, finished or not."""
        if not self._sink.closed:
            self._sink.kept = sys.maxsize  # a writer that is closed adds an end to its file
            self._writer.close()
            self._sink.close()
            self._journal.close()

    def _write(self, stimulus_ids: Sequence[str], activations: np.ndarray) -> None:
        rows = record_batch(self._schema, stimulus_ids, activations)
        # A table is written through to the sink, a batch might wait in the writer.
        self._writer.write_table(pa.Table.from_batches([rows]))

    def _left_behind(self) -> list[_Group]:
        """The row groups of a part that was begun with the same facts, up to the first torn one."""
        groups: list[_Group] = []
        try:
            first, *lines = self._journal_path.read_text("utf-8").splitlines()
            if json.loads(first) != self._facts:
                return groups
            with self._data.open("rb") as data:
                for line in lines:
                    group = _Group(**json.loads(line))
                    pages = data.read(group.end - data.tell())
                    if zlib.crc32(pages) != group.crc32:
                        break
                    groups.append(group)
        except (OSError, ValueError, TypeError):
            pass  # nothing, or a torn line
        return groups


class _Sink(RawIOBase):
    """A file that takes no bytes for the part of it that is there already.

    Attributes:
        kept: how many bytes that part has.
        position: how many bytes it was given.
        crc32: of the bytes that went to the file since this was last set to 0.
    """

    def __init__(self, path: Path, kept: int) -> None:
        super().__init__()
        self.position, self.crc32 = 0, 0
        self.kept = kept
        self._file = path.open("ab", buffering=0)
        self._file.truncate(kept)

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        if self.position >= self.kept:
            self.crc32 = zlib.crc32(data, self.crc32)
            written = memoryview(data)
            while written:
                written = written[self._file.write(written) :]
        self.position += len(data)
        return len(data)

    def sync(self) -> None:
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()
        super().close()


def _sync_folder(folder: Path) -> None:
    """See the renaming on disk too, where a folder can be opened."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
