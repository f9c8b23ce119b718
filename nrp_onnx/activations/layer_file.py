"""The file of a layer: one Parquet file that any Parquet reader opens, and how it is read."""

import hashlib
import json
import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from nrp_onnx.activations.remote import RemoteFile
from nrp_onnx.backbone.feature_graph import Feature
from nrp_onnx.backbone.reductions import PrincipalComponents
from nrp_onnx.errors import OutputError

#: Of what a file says of itself, in the metadata of its schema, as JSON.
FACTS_KEY = b"nrp_onnx.activations"

#: Goes up when what is in the files changes its meaning.
STORE_VERSION = 1

#: Of a row group, or one image where that is more: what a reader holds at a time.
_GROUP_BYTES = 2**22
_ROWS_A_GROUP = 16
_IMAGES_A_BLOCK = 16

#: A layer's name that is the name of its file, too. File systems take 255 bytes, with what is added.
_PLAIN_NAME = re.compile(r"[A-Za-z0-9._#-]{1,200}")


def layer_path(folder: Path, layer_name: str) -> Path:
    """The file of a layer, unlike that of any other name.

    A name with characters that file systems dislike, or one that is too long, is cut short and has a
    hash after a ``~``, which no other name has.
    """
    name = layer_name
    if not _PLAIN_NAME.fullmatch(name):
        cleaned = re.sub(r"[^A-Za-z0-9._#-]+", "_", name)[:150]
        name = f"{cleaned}~{hashlib.sha256(layer_name.encode()).hexdigest()[:12]}"
    return folder / f"{name}.parquet"


def activations_schema(n_features: int, facts: dict[str, Any] | None = None) -> pa.Schema:
    """The columns of a layer's file, and its facts where they are known."""
    values = pa.list_(pa.float32(), n_features)
    metadata = None if facts is None else {FACTS_KEY: json.dumps(facts).encode()}
    return pa.schema([("stimulus_id", pa.string()), ("activation", values)], metadata=metadata)


def record_batch(
    schema: pa.Schema, stimulus_ids: Sequence[str], activations: np.ndarray
) -> pa.RecordBatch:
    """Rows of a layer's file: float32 activations (n, n_features)."""
    flat = pa.array(np.ascontiguousarray(activations, np.float32).ravel())
    lists = pa.FixedSizeListArray.from_arrays(flat, type=schema.field("activation").type)
    return pa.record_batch([pa.array(stimulus_ids, pa.string()), lists], schema=schema)


def rows_a_group(n_features: int) -> int:
    """Stimuli of a row group; the last one may have fewer."""
    return min(_ROWS_A_GROUP, max(1, _GROUP_BYTES // (4 * n_features)))


def opened(path: Path | RemoteFile) -> pq.ParquetFile:
    """The Parquet file there, for reading; it closes what it opened."""
    return pq.ParquetFile(path if isinstance(path, Path) else path.open())


def stored_facts(path: Path | RemoteFile) -> dict[str, Any] | None:
    """The facts in a layer's file, or None if there is no file.

    Raises:
        OutputError: if there is a file that is no whole layer's file of this version.
    """
    if not path.is_file():
        return None
    try:
        with opened(path) as file:
            metadata = file.schema_arrow.metadata or {}
        facts: dict[str, Any] = json.loads(metadata[FACTS_KEY])
        version = facts["store_version"]
    except (OSError, pa.ArrowInvalid, ValueError, KeyError, TypeError):
        version = None
    if version != STORE_VERSION:
        raise OutputError(
            "the file in this layer's place is of another version or another program",
            where=path,
            expected=f"activations of store version {STORE_VERSION}",
            found="none" if version is None else f"version {version}",
            fix="Move it away, or choose another folder with -o.",
        )
    return facts


def fitting_facts(
    path: Path | RemoteFile, fingerprint: str, overwrite: bool
) -> dict[str, Any] | None:
    """The facts of a layer's file, or None if it has to be written.

    Args:
        fingerprint: of the activations that it has to hold.
        overwrite: whether a file with others may be replaced.

    Raises:
        OutputError: if it may not, or the file is no layer's file of this version.
    """
    held = stored_facts(path)
    if held is None or held["fingerprint"] == fingerprint:
        return held
    if not overwrite:
        raise OutputError(
            "the file holds other activations of a layer of this name",
            where=path,
            expected=f"fingerprint {fingerprint[:12]}",
            found=held["fingerprint"][:12],
            fix="Choose another folder, or pass --overwrite (overwrite=True in Python).",
        )
    return None


def stored_ids(path: Path | RemoteFile) -> frozenset[str]:
    """Ids of the stimuli in a layer's file."""
    with opened(path) as file:
        return frozenset(file.read(columns=["stimulus_id"])["stimulus_id"].to_pylist())


class LayerActivations(Protocol):
    """Activations of n images, each of D features, that need not fit in memory."""

    @property
    def shape(self) -> tuple[int, int]:
        """(n, D)."""
        ...

    def blocks(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Places of a few images, int64 (k,), and their activations, float32 (k, D).

        Every image comes once; the order of the blocks is that of their storage.
        """
        ...

    def feature_blocks(self, width: int) -> Iterator[tuple[slice, np.ndarray]]:
        """``width`` features at a time: which, and a new array of all images, float32 (n, width)."""
        ...

    def read(self, places: np.ndarray) -> np.ndarray:
        """The activations of some images, float32 (k, D)."""
        ...


@dataclass(frozen=True, eq=False)
class LoadedLayer:
    """Activations in memory, float32 (n, D)."""

    array: np.ndarray

    @property
    def shape(self) -> tuple[int, int]:
        return self.array.shape[0], self.array.shape[1]

    def blocks(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for start in range(0, len(self.array), _IMAGES_A_BLOCK):
            block = self.array[start : start + _IMAGES_A_BLOCK]
            yield np.arange(start, start + len(block)), block

    def feature_blocks(self, width: int) -> Iterator[tuple[slice, np.ndarray]]:
        for start in range(0, self.array.shape[1], width):
            block = slice(start, start + width)
            yield block, self.array[:, block].copy()

    def read(self, places: np.ndarray) -> np.ndarray:
        found: np.ndarray = self.array[places]
        return found


class StoredLayer:
    """The activations of a layer in its Parquet file, in the order of ``stimulus_ids``.

    Memory holds one row group at a time.

    Args:
        fingerprint: of the activations that the file has to hold, whenever it is read; None: any.

    Raises:
        OutputError: if the file holds others, or not all stimuli.
    """

    def __init__(
        self,
        path: Path | RemoteFile,
        stimulus_ids: tuple[str, ...],
        fingerprint: str | None = None,
    ) -> None:
        # Another process, which reads it too, may have another working folder.
        self._path = path.resolve() if isinstance(path, Path) else path
        self._fingerprint = fingerprint
        with self._opened() as file:
            ids = file.read(columns=["stimulus_id"])["stimulus_id"].to_pylist()
            n_features = file.schema_arrow.field("activation").type.list_size
            sizes = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
        row = {name: place for place, name in enumerate(ids)}
        missing = [name for name in stimulus_ids if name not in row]
        if missing:
            raise OutputError(
                "stimuli are missing", where=path, expected=missing[0], fix="Delete the file."
            )
        self.shape = (len(stimulus_ids), n_features)
        self._row = np.array([row[name] for name in stimulus_ids], np.int64)
        self._starts = np.concatenate([[0], np.cumsum(sizes)])

    def blocks(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """See `LayerActivations`."""
        yield from self._blocks_of(np.arange(self.shape[0]))

    def feature_blocks(self, width: int) -> Iterator[tuple[slice, np.ndarray]]:
        """See `LayerActivations`.

        The file holds images, so a first pass sorts it into blocks of features in a scratch file
        beside it (for a file elsewhere: among the temporary files), of 4 n D bytes, which is gone
        afterwards. Ordinary reads and writes leave the
        pages of that file to the operating system; those of a memory map would be this process's.
        """
        n, n_features = self.shape
        beside = self._path.parent if isinstance(self._path, Path) else None
        with tempfile.TemporaryFile(dir=beside) as file:
            order: list[np.ndarray] = []
            written = 0
            for places, rows in self.blocks():
                for start in range(0, n_features, width):
                    part = np.ascontiguousarray(rows[:, start : start + width])
                    # Blocks before this one are n images long; in this one, some are written.
                    file.seek(4 * (n * start + written * part.shape[1]))
                    file.write(part.data)
                order.append(places)
                written += len(places)
            stored = np.concatenate(order)
            for start in range(0, n_features, width):
                part = np.empty((n, min(width, n_features - start)), np.float32)
                file.seek(4 * n * start)
                file.readinto(part.data)
                block = np.empty_like(part)
                block[stored] = part
                yield slice(start, start + part.shape[1]), block

    def read(self, places: np.ndarray) -> np.ndarray:
        """See `LayerActivations`."""
        found = np.empty((len(places), self.shape[1]), np.float32)
        for rows, block in self._blocks_of(places):
            found[rows] = block
        return found

    @contextmanager
    def _opened(self) -> Iterator[pq.ParquetFile]:
        with opened(self._path) as file:
            if self._fingerprint is not None:
                facts = json.loads((file.schema_arrow.metadata or {}).get(FACTS_KEY, b"{}"))
                held = str(facts.get("fingerprint"))
                if held != self._fingerprint:
                    raise OutputError(
                        "the file holds other activations than those of this layer",
                        where=self._path,
                        expected=f"fingerprint {self._fingerprint[:12]}",
                        found=held[:12],
                        fix="Run this again, and nothing else that writes into this folder.",
                    )
            yield file

    def _blocks_of(self, places: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Row group by row group: positions in ``places``, and the activations of these images."""
        rows = self._row[places]
        group = np.searchsorted(self._starts, rows, side="right") - 1
        with self._opened() as file:
            for number in np.unique(group):
                column = file.read_row_group(int(number), ["activation"], use_threads=False)[
                    "activation"
                ]
                values = np.concatenate([chunk.flatten().to_numpy() for chunk in column.chunks])
                positions = np.flatnonzero(group == number)
                block = values.reshape(-1, self.shape[1])
                yield positions, block[rows[positions] - self._starts[number]]


def components_path(folder: Path, feature: Feature) -> Path:
    """Where the components of a layer are, under the folder of its activations."""
    return layer_path(folder / "components", feature.layer.name)


def component_names(k: int) -> tuple[str, ...]:
    """What stands in the place of the ids of stimuli."""
    return ("mean", *(f"component_{place:04d}" for place in range(k)))


def read_components(feature: Feature, folder: Path, fingerprint: str | None = None) -> Feature:
    """A feature of ``pca:K`` with the components that were fitted and stored in ``folder``.

    Args:
        fingerprint: of the components; see `StoredLayer`.
    """
    names = component_names(feature.reduction.k)
    layer = StoredLayer(components_path(folder, feature), names, fingerprint)
    rows = layer.read(np.arange(len(names)))
    components = PrincipalComponents(rows[0], np.ascontiguousarray(rows[1:].T))
    return replace(feature, reduction=replace(feature.reduction, components=components))
