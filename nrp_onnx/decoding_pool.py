"""Decodes image files in threads, ahead of their use, in their order."""

import os
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Protocol

import numpy as np

from nrp_onnx.decoding import BACKGROUND, Decoded, decode
from nrp_onnx.errors import RecordingsError

#: A place in a list of image files, and its image as uint8 RGB (height, width, 3).
PlacedImage = tuple[int, np.ndarray]


class EncodedImage(Protocol):
    """An image inside another file, such as `nrp_onnx.image_sets.StoredImage`."""

    def decoded(self) -> Decoded: ...


class DecodedImages:
    """Images in the order of their files; a context manager.

    Args:
        skip_bad: leave out images that do not open, instead of raising.
        ahead: at most so many times as many as were last asked for are decoded and wait, so that
            memory stays flat.

    Attributes:
        skipped: places of the images that were left out.
        n_transparent: of the images that were taken, those with transparent pixels.
        n_turned: those that EXIF turned upright.
    """

    def __init__(
        self, paths: Sequence[Path | EncodedImage], skip_bad: bool = False, ahead: int = 2
    ) -> None:
        self.skipped: list[int] = []
        self.n_transparent = self.n_turned = 0
        self._paths, self._next, self._skip_bad, self._ahead = paths, 0, skip_bad, ahead
        self._waiting: deque[tuple[int, Future[Decoded]]] = deque()
        self._pool = ThreadPoolExecutor(n_cores(), thread_name_prefix="decode")

    def __enter__(self) -> "DecodedImages":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._pool.shutdown(cancel_futures=True)

    def take(self, count: int) -> list[PlacedImage]:
        """The next ``count`` images; fewer at the end.

        Raises:
            RecordingsError: if one does not open and is not to be left out.
        """
        taken: list[PlacedImage] = []
        while len(taken) < count and (found := self.next_one(self._ahead * count)) is not None:
            place, image = found
            if isinstance(image, Decoded):
                self.n_transparent += image.transparent
                self.n_turned += image.turned
                taken.append((place, image.pixels))
            elif self._skip_bad:
                self.skipped.append(place)
            else:
                raise image
        return taken

    def next_one(self, ahead: int) -> tuple[int, Decoded | RecordingsError] | None:
        """The next image with its place, or why it does not open; None at the end.

        Args:
            ahead: at most so many are decoded and wait.
        """
        while len(self._waiting) < ahead and self._next < len(self._paths):
            path = self._paths[self._next]
            self._waiting.append((self._next, self._pool.submit(_decoded, path)))
            self._next += 1
        if not self._waiting:
            return None
        place, image = self._waiting.popleft()
        try:
            return place, image.result()
        except RecordingsError as problem:
            return place, problem

    def notes(self) -> list[str]:
        """What was done to images that were taken, for `nrp_onnx.notes.Notes`."""
        said = []
        if self.n_transparent:
            colour = ", ".join(map(str, BACKGROUND))
            said.append(
                f"{self.n_transparent} images have transparent pixels: shown on mid grey ({colour})"
            )
        if self.n_turned:
            said.append(f"{self.n_turned} images are turned upright, as their EXIF says")
        return said


def _decoded(image: Path | EncodedImage) -> Decoded:
    return decode(image, image) if isinstance(image, Path) else image.decoded()


def n_cores() -> int:
    """Those that this process may use, where the system says so; at most OMP_NUM_THREADS, where set.

    Ray and batch systems set that variable to the cores that they give a task.
    """
    here = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    given = os.environ.get("OMP_NUM_THREADS", "")
    return min(here, int(given)) if given.isdigit() and int(given) else here
