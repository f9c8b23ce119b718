"""Activations on disk: one Parquet file a layer, that any Parquet reader opens."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from nrp_onnx.errors import OutputError

#: Of what a file says of itself, in the metadata of its schema, as JSON.
FACTS_KEY = b"nrp_onnx.activations"

#: Goes up when what is in the files changes its meaning.
STORE_VERSION = 1

#: How pages are written. Activations hardly compress, and statistics of theirs mean nothing.
WRITING = {"use_dictionary": False, "compression": "none", "write_statistics": False}


def layer_path(folder: Path, layer_name: str) -> Path:
    """The file of a layer: its name, with what file systems dislike replaced."""
    return folder / (re.sub(r"[^A-Za-z0-9._#-]+", "_", layer_name) + ".parquet")


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


class LayerWriter:
    """Writes the activations of one layer, batch by batch, a row group each."""

    def __init__(self, path: Path, n_features: int, facts: dict[str, Any]) -> None:
        self._schema = activations_schema(n_features, facts)
        self._writer = pq.ParquetWriter(path, self._schema, **WRITING)

    def write(self, stimulus_ids: Sequence[str], activations: np.ndarray) -> None:
        """Append rows: float32 (n, n_features)."""
        self._writer.write_batch(record_batch(self._schema, stimulus_ids, activations))

    def close(self) -> None:
        self._writer.close()


def stored_facts(path: Path) -> dict[str, Any] | None:
    """The facts in a layer's file, or None if there is no file.

    Raises:
        OutputError: if there is a file that is no whole layer's file of this version.
    """
    if not path.exists():
        return None
    try:
        metadata = pq.read_schema(path).metadata or {}
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


def stored_ids(path: Path) -> frozenset[str]:
    """Ids of the stimuli in a layer's file."""
    return frozenset(pq.read_table(path, columns=["stimulus_id"])["stimulus_id"].to_pylist())


def read_activations(path: Path, stimulus_ids: tuple[str, ...]) -> np.ndarray:
    """The activations of a layer in the order of ``stimulus_ids``: float32 (n, n_features).

    Raises:
        OutputError: if the file does not hold all of them.
    """
    table = pq.read_table(path)
    row = {name: place for place, name in enumerate(table["stimulus_id"].to_pylist())}
    missing = [name for name in stimulus_ids if name not in row]
    if missing:
        raise OutputError(
            "stimuli are missing", where=path, expected=missing[0], fix="Delete the file."
        )
    column = table["activation"]
    matrix = np.empty((len(row), column.type.list_size), np.float32)
    start = 0
    for chunk in column.chunks:  # a flattened column of over 2^31 numbers would not fit Arrow
        block = chunk.flatten().to_numpy().reshape(len(chunk), -1)
        matrix[start : start + len(chunk)] = block
        start += len(chunk)
    order = np.array([row[name] for name in stimulus_ids])
    return matrix if np.array_equal(order, np.arange(len(row))) else matrix[order]
