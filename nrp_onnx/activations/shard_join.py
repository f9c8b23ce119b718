"""Joins the shards of a layer into its file, which is the same to the byte as one written in one go."""

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from nrp_onnx.activations.layer_part import ROWS
from nrp_onnx.activations.layer_parts import LayerParts


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
