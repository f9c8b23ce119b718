"""The files of all layers of an extraction, which grow in step."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nrp_onnx.activations.layer_part import ROWS, LayerPart


class LayerParts:
    """Takes rows of all layers and writes `ROWS` at a time; a context manager.

    Args:
        paths: where the finished files go.
        n_features: numbers a stimulus, of each layer.
        facts: what each finished file says of itself.
        batch: stimuli that are computed together; a run goes on after a whole number of batches.

    Attributes:
        stimulus_ids: what is written already.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        n_features: Sequence[int],
        facts: Sequence[dict[str, Any]],
        batch: int,
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
        for part in self._parts:
            part.open(n_steps)

    def __enter__(self) -> "LayerParts":
        return self

    def __exit__(self, *_: object) -> None:
        for part in self._parts:
            part.close()

    def write(self, stimulus_ids: Sequence[str], outputs: Sequence[np.ndarray]) -> None:
        """Append rows: float32 (n, n_features) of each layer; what is left over waits."""
        ids, rows = [*self._waiting_ids, *stimulus_ids], list(outputs)
        if self._waiting_ids:
            rows = [np.concatenate(pair) for pair in zip(self._waiting, rows, strict=True)]
        n_whole = len(ids) - len(ids) % ROWS
        self._append(ids[:n_whole], [output[:n_whole] for output in rows])
        # Copies, so that what waits does not keep a whole batch in memory.
        self._waiting_ids, self._waiting = ids[n_whole:], [o[n_whole:].copy() for o in rows]

    def finish(self) -> None:
        """Write what waits, and put the files in their places."""
        self._append(self._waiting_ids, self._waiting)
        for part in self._parts:
            part.finish()

    def _append(self, ids: list[str], rows: Sequence[np.ndarray]) -> None:
        for start in range(0, len(ids), ROWS):
            for part, output in zip(self._parts, rows, strict=True):
                part.append(ids[start : start + ROWS], output[start : start + ROWS])
