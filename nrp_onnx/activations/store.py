"""Activations on disk: one Parquet file a layer, that any Parquet reader opens."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from nrp_onnx.errors import OutputError

_KEY = b"nrp_onnx.activations"


def layer_path(folder: Path, layer_name: str) -> Path:
    """The file of a layer: its name, with what file systems dislike replaced."""
    return folder / (re.sub(r"[^A-Za-z0-9._#-]+", "_", layer_name) + ".parquet")


class LayerWriter:
    """Writes the activations of one layer, batch by batch."""

    def __init__(self, path: Path, n_features: int, facts: dict[str, Any]) -> None:
        self.n_features = n_features
        values = pa.list_(pa.float32(), n_features)
        self._schema = pa.schema(
            [("stimulus_id", pa.string()), ("activation", values)],
            metadata={_KEY: json.dumps(facts).encode()},
        )
        self._writer = pq.ParquetWriter(path, self._schema, use_dictionary=False)

    def write(self, stimulus_ids: list[str], activations: np.ndarray) -> None:
        """Append rows: float32 (n, n_features)."""
        flat = pa.array(np.ascontiguousarray(activations, np.float32).ravel())
        lists = pa.FixedSizeListArray.from_arrays(flat, self.n_features)
        batch = pa.record_batch([pa.array(stimulus_ids, pa.string()), lists], schema=self._schema)
        self._writer.write_batch(batch)

    def close(self) -> None:
        self._writer.close()


def stored_facts(path: Path) -> dict[str, Any] | None:
    """The facts in a layer's file, or None if there is no whole file of that kind."""
    try:
        metadata = pq.read_schema(path).metadata or {}
    except (OSError, pa.ArrowInvalid):
        return None
    facts: dict[str, Any] | None = json.loads(metadata[_KEY]) if _KEY in metadata else None
    return facts


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
