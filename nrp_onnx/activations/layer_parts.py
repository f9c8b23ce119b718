"""The files of all layers of an extraction, which grow in step."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nrp_onnx.activations.layer_part import ROWS, LayerPart, waiting_path
from nrp_onnx.activations.waiting_rows import WaitingRows


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
