"""Writes the Parquet files of layers, safe to kill at any moment.

One file beside the parts takes the rows of all layers, batch by batch: a checksum, the lengths, JSON
that says what the rows are, and their bytes. Nothing is forced to the disk. A killed process loses
nothing of it; what a power cut tears does not fit its checksum.

Once all rows are in steps the file is written over from its beginning, which costs less than emptying it.
Each record names the stimulus before its own, so what is left of older ones follows nothing. Where some
rows still wait, a new file with these takes its place, so that they are on disk all the time.

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
import struct
import sys
import tempfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from io import RawIOBase
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from nrp_onnx.activations.layer_file import WRITING, activations_schema, record_batch, rows_a_group
from nrp_onnx.errors import OutputError
from nrp_onnx.files import UNFINISHED, sha256_of_json, whole_file

#: Of the records; those of another one are not read.
_VERSION = 1
#: The checksum of all that comes after the lengths; the bytes of the JSON, and of the rows.
_HEAD = struct.Struct("<IIQ")


class WaitingRows:
    """The file of the rows that are in no step yet.

    Args:
        path: of the file; its folder exists.
        n_features: numbers a stimulus, of each layer.
        facts: what the finished file of each layer says of itself. Rows that were left behind are
            taken only if they were computed for the same.
    """

    def __init__(
        self, path: Path, n_features: Sequence[int], facts: Sequence[dict[str, Any]]
    ) -> None:
        self._path, self._n_features = path, list(n_features)
        self._facts = sha256_of_json([_VERSION, self._n_features, *facts])
        self._before: str | None = None
        path.touch()
        self._file = path.open("r+b", buffering=0)
        self._new = path.with_suffix(".new")
        self._new.unlink(missing_ok=True)

    def take(self, done: Sequence[str], batch: int) -> tuple[list[str], list[np.ndarray]]:
        """What a killed run left: stimuli, and float32 (n, n_features) of each layer.

        What is appended from then on comes after it.

        Args:
            done: the stimuli that are in steps.
            batch: stimuli that are computed together; with the rows, whole batches are done.
        """
        taken: list[tuple[list[str], list[np.ndarray]]] = []
        last = done[-1] if done else None
        n_done, n_records, end = len(done), 0, 0
        with self._path.open("rb") as file:
            for before, ids, rows in self._chain(file):
                if taken or before == last:
                    start = 0
                elif last in ids:  # the first of these rows are in a step
                    start = ids.index(last) + 1
                else:
                    continue
                taken.append((ids[start:], [output[start:] for output in rows]))
                n_done += len(ids) - start
                if n_done % batch == 0:
                    n_records, end = len(taken), file.tell()
        del taken[n_records:]
        found = [name for ids, _ in taken for name in ids]
        self._file.truncate(end if found else 0)
        self._file.seek(0, 2)
        self._before = found[-1] if found else last
        layers = zip(*(rows for _, rows in taken), strict=True)
        return found, [np.concatenate(rows) for rows in layers] if found else []

    def append(self, stimulus_ids: Sequence[str], rows: Sequence[np.ndarray]) -> None:
        """Add rows: float32 (n, n_features) of each layer."""
        self._write(self._file, stimulus_ids, rows)

    def restart(self, before: str, stimulus_ids: Sequence[str], rows: Sequence[np.ndarray]) -> None:
        """Keep these rows only, or none: all others are in steps, the last of which ends with ``before``."""
        self._before = before
        if not stimulus_ids:
            self._file.seek(0)
            return
        with self._new.open("wb", buffering=0) as file:
            self._write(file, stimulus_ids, rows)
        self._file.close()
        self._new.replace(self._path)
        self._file = self._path.open("r+b", buffering=0)
        self._file.seek(0, 2)

    def remove(self) -> None:
        """Remove the file: all rows are in steps."""
        self.close()
        self._path.unlink(missing_ok=True)

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()

    def _write(
        self, file: RawIOBase, stimulus_ids: Sequence[str], rows: Sequence[np.ndarray]
    ) -> None:
        entry = {
            "facts": self._facts,
            "before": self._before,
            "stimulus_ids": list(stimulus_ids),
        }
        pieces = [memoryview(json.dumps(entry).encode())]
        pieces += [np.ascontiguousarray(output).data.cast("B") for output in rows]
        crc32 = 0
        for piece in pieces:
            crc32 = zlib.crc32(piece, crc32)
        lengths = (len(pieces[0]), sum(map(len, pieces[1:])))
        for piece in (memoryview(_HEAD.pack(crc32, *lengths)), *pieces):
            left = piece
            while left:
                left = left[file.write(left) or 0 :]
        self._before = stimulus_ids[-1]

    def _chain(self, file: BinaryIO) -> Iterator[tuple[str | None, list[str], list[np.ndarray]]]:
        """The stimulus before, the stimuli and the rows of records of which each follows the last."""
        follows: str | None = None
        for place, (entry, data) in enumerate(_records(file)):
            before, ids = entry["before"], entry["stimulus_ids"]
            if entry["facts"] != self._facts or (place and before != follows):
                return
            rows, start = [], 0
            for n_features in self._n_features:
                found = np.frombuffer(data, np.float32, len(ids) * n_features, start)
                rows.append(found.reshape(len(ids), n_features))
                start += found.nbytes
            yield before, ids, rows
            follows = ids[-1]


def _records(file: BinaryIO) -> Iterator[tuple[dict[str, Any], memoryview]]:
    """The JSON and the bytes of each record, up to the first torn one."""
    size = file.seek(0, 2)
    file.seek(0)
    while len(head := file.read(_HEAD.size)) == _HEAD.size:
        crc32, n_text, n_bytes = _HEAD.unpack(head)
        if n_text + n_bytes > size - file.tell():
            return
        body = file.read(n_text + n_bytes)
        if zlib.crc32(body) != crc32:
            return
        try:
            entry = json.loads(body[:n_text])
        except ValueError:  # zeros fit the checksum 0 of nothing
            return
        yield entry, memoryview(body)[n_text:]


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


class LayerParts:
    """Takes rows of all layers and writes `ROWS` at a time; a context manager.

    Args:
        paths: where the finished files go, all in one folder.
        n_features: numbers a stimulus, of each layer.
        facts: what each finished file says of itself.
        batch: stimuli that are computed together; a run goes on after a whole number of batches.
        keeps: whether rows that wait for a whole step are on disk, too.

    Attributes:
        stimulus_ids: what is on disk already.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        n_features: Sequence[int],
        facts: Sequence[dict[str, Any]],
        batch: int,
        keeps: bool = True,
    ) -> None:
        self._parts = [LayerPart(*given) for given in zip(paths, n_features, facts, strict=True)]
        a_batch = max(batch // ROWS, 1)
        n_steps = min(len(part.stimulus_ids) for part in self._parts)
        n_steps -= n_steps % a_batch
        steps = self._parts[0].stimulus_ids[:n_steps]
        for part in self._parts:
            if part.stimulus_ids[:n_steps] != steps:  # no two runs write that
                steps, n_steps = [], 0
        self.stimulus_ids = [name for one in steps for name in one]
        self._waiting_ids: list[str] = []
        self._waiting: list[np.ndarray] = []
        self._kept: WaitingRows | None = None
        for part in self._parts:
            part.open(n_steps)
        if keeps:
            self._kept = WaitingRows(waiting_path(paths[0]), n_features, facts)
            self._waiting_ids, self._waiting = self._kept.take(self.stimulus_ids, batch)
            self.stimulus_ids += self._waiting_ids
            self.write_steps()

    def __enter__(self) -> "LayerParts":
        return self

    def __exit__(self, *_: object) -> None:
        for part in self._parts:
            part.close()
        if self._kept is not None:
            self._kept.close()

    def write(self, stimulus_ids: Sequence[str], outputs: Sequence[np.ndarray]) -> None:
        """Take rows: float32 (n, n_features) of each layer; when this returns, they are on disk.

        Few rows are only kept among those that wait, which is quick: call `write_steps` after that.
        """
        many = len(stimulus_ids) >= ROWS  # they are not written twice
        if self._kept is not None and not many:
            self._kept.append(stimulus_ids, outputs)
        rows = list(outputs)
        if self._waiting_ids:
            rows = [np.concatenate(pair) for pair in zip(self._waiting, rows, strict=True)]
        self._waiting_ids, self._waiting = [*self._waiting_ids, *stimulus_ids], rows
        if many:
            self.write_steps()

    def write_steps(self) -> None:
        """Write the whole steps of what waits; what is left over goes on waiting."""
        ids, rows = self._waiting_ids, self._waiting
        n_whole = len(ids) - len(ids) % ROWS
        if not n_whole:
            return
        self._append(ids[:n_whole], rows)
        # Copies, so that what waits does not keep a whole batch in memory.
        self._waiting_ids, self._waiting = ids[n_whole:], [o[n_whole:].copy() for o in rows]
        if self._kept is not None:
            self._kept.restart(ids[n_whole - 1], self._waiting_ids, self._waiting)

    def finish(self) -> None:
        """Write what waits, and put the files in their places."""
        self._append(self._waiting_ids, self._waiting)
        if self._kept is not None:
            self._kept.remove()
        for part in self._parts:
            part.finish()

    def _append(self, ids: list[str], rows: Sequence[np.ndarray]) -> None:
        for start in range(0, len(ids), ROWS):
            end = min(start + ROWS, len(ids))
            for part, output in zip(self._parts, rows, strict=True):
                part.append(ids[start:end], output[start:end])


@dataclass(frozen=True)
class LayerFile:
    """Where the file of a layer goes, what it says of itself, and the shards that it is made of."""

    path: Path
    n_features: int
    facts: dict[str, Any]
    shards: tuple[Path, ...]


def join_layer(layer: LayerFile) -> None:
    """Write the file of a layer; memory holds a row group at a time.

    It is written in a folder of its own, so that two machines that do the same do not meet.

    Raises:
        OSError: if it cannot be written.
    """
    with tempfile.TemporaryDirectory(dir=layer.shards[0].parents[1], prefix="join-") as folder:
        path = Path(folder) / layer.path.name
        with LayerParts([path], [layer.n_features], [layer.facts], ROWS, keeps=False) as parts:
            for shard in layer.shards:
                for ids, rows in _rows(shard):
                    parts.write(ids, [rows])
                    parts.write_steps()
            parts.finish()
        path.replace(layer.path)


def _rows(shard: Path) -> Iterator[tuple[list[str], np.ndarray]]:
    with pq.ParquetFile(shard) as file:
        for number in range(file.num_row_groups):
            table = file.read_row_group(number, use_threads=False)
            if len(table):
                values = [part.flatten().to_numpy() for part in table["activation"].chunks]
                ids = table["stimulus_id"].to_pylist()
                yield ids, np.concatenate(values).reshape(len(ids), -1)
