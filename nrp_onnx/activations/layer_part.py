"""A layer's Parquet file while it grows, safe to kill at any moment.

It grows by `ROWS` stimuli at a time, whatever the batch size. After each time, a line in a journal beside
it says where it ends now, which stimuli were added, and the checksum of their bytes. A killed run leaves
whole steps and at most a torn end, which is cut off.

Parquet keeps the places of all row groups in the writer's memory until the file is closed. A run that
goes on has a new writer, so it is given the old steps again, and what it writes of them is thrown away:
it is in the file already. Neither the size of a page nor anything that Parquet says of it hangs on the
activations (plain encoding, no compression, no statistics), so zeros do in their stead.
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

from nrp_onnx.activations.store import (
    WRITING,
    activations_schema,
    record_batch,
    rows_a_group,
)
from nrp_onnx.errors import OutputError
from nrp_onnx.files import UNFINISHED, whole_file

#: Stimuli that are written in one step: one row group, or several where a stimulus is large.
ROWS = 16

_FOLDER = ".part"
_WAITING = ("waiting", "waiting.new")


@dataclass(frozen=True)
class _Step:
    """What was written at a time, as the journal has it."""

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
        self._steps = self._left_behind()

    @property
    def stimulus_ids(self) -> list[list[str]]:
        """The stimuli of each step that a killed run left."""
        return [step.stimulus_ids for step in self._steps]

    def open(self, n_steps: int) -> None:
        """Go on after the first ``n_steps`` steps; what comes after them is cut off."""
        kept = self._steps[:n_steps]
        lines = [self._facts, *map(asdict, kept)]
        with whole_file(self._journal_path) as journal:
            journal.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
        self._journal = self._journal_path.open("a", encoding="utf-8")
        self._sink = _Sink(self._data, kept[-1].end if kept else 0)
        self._writer = pq.ParquetWriter(self._sink, self._schema, **WRITING)
        for step in kept:
            nothing = np.zeros((len(step.stimulus_ids), self._n_features), np.float32)
            self._write(step.stimulus_ids, nothing)
            if self._sink.position != step.end:
                raise OutputError(
                    "an interrupted extraction does not go on with this version of pyarrow",
                    where=self._data,
                    expected=f"a step that ends at byte {step.end}",
                    found=self._sink.position,
                    fix=f"Delete the folder {self._data.parent}.",
                )

    def append(self, stimulus_ids: Sequence[str], activations: np.ndarray) -> None:
        """Append up to `ROWS` rows: float32 (n, n_features)."""
        self._write(stimulus_ids, activations)
        step = _Step(list(stimulus_ids), self._sink.position, self._sink.crc32)
        self._sink.crc32 = 0
        self._journal.write(json.dumps(asdict(step)) + "\n")
        self._journal.flush()

    def finish(self) -> None:
        """Close the file, see it on disk and put it in its place."""
        self._writer.close()
        self._sink.sync()
        self._sink.close()
        self._journal.close()
        self._data.replace(self.path)
        _sync_folder(self.path.parent)
        forget_part(self.path)

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
        self._writer.write_table(pa.Table.from_batches([rows]), rows_a_group(self._n_features))

    def _left_behind(self) -> list[_Step]:
        """The steps of a part that was begun with the same facts, up to the first torn one."""
        steps: list[_Step] = []
        try:
            first, *lines = self._journal_path.read_text("utf-8").splitlines()
            if json.loads(first) != self._facts:
                return steps
            with self._data.open("rb") as data:
                for line in lines:
                    step = _Step(**json.loads(line))
                    pages = data.read(step.end - data.tell())
                    if zlib.crc32(pages) != step.crc32:
                        break
                    steps.append(step)
        except (OSError, ValueError, TypeError):
            pass  # nothing, or a torn line
        return steps


def forget_part(path: Path) -> None:
    """Remove what is left of the unfinished file of a layer whose file is in its place."""
    folder = path.parent / _FOLDER
    for left in (folder / path.name, (folder / path.name).with_suffix(".jsonl")):
        left.unlink(missing_ok=True)
    # Rows that wait for steps of no part, and a journal that was being written when its run was killed.
    if folder.is_dir() and all(
        left.name in _WAITING or left.suffix == UNFINISHED for left in folder.iterdir()
    ):
        for left in folder.iterdir():
            left.unlink()
        folder.rmdir()


def waiting_path(path: Path) -> Path:
    """The file of the rows that wait for a step, of all layers whose files go into one folder."""
    return path.parent / _FOLDER / _WAITING[0]


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
