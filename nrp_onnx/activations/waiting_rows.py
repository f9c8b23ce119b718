"""Rows that wait for a whole step of their layers' files, on disk from the moment they are computed.

One file beside the parts takes the rows of all layers, batch by batch: a checksum, the lengths, JSON
that says what the rows are, and their bytes. Nothing is forced to the disk. A killed process loses
nothing of it; what a power cut tears does not fit its checksum.

Once all rows are in steps the file is written over from its beginning, which costs less than emptying it.
Each record names the stimulus before its own, so what is left of older ones follows nothing. Where some
rows still wait, a new file with these takes its place, so that they are on disk all the time.
"""

import json
import struct
import zlib
from collections.abc import Iterator, Sequence
from io import RawIOBase
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from nrp_onnx.files import sha256_of_json

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
