"""The activations of a layer, read a few images or a few features at a time, from wherever they are."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np

_IMAGES_A_BLOCK = 16


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
