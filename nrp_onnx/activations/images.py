"""Images of stimuli: decoded to uint8 RGB in threads, ahead of their use."""

import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Protocol

import numpy as np
from PIL import Image

from nrp_onnx.errors import RecordingsError
from nrp_onnx.files import sha256_of_file, sha256_of_json

#: A place in a list of image files, and its image as uint8 RGB (height, width, 3).
PlacedImage = tuple[int, np.ndarray]


class Stimuli(Protocol):
    """Images with ids, such as `nrp_onnx.recordings.Recordings`."""

    @property
    def stimulus_ids(self) -> tuple[str, ...]: ...

    @property
    def stimulus_paths(self) -> tuple[Path, ...]: ...

    @property
    def stimuli_fingerprint(self) -> str:
        """SHA-256 over the ids and the bytes of all images, in order."""


@dataclass(frozen=True)
class StimulusRange:
    """Consecutive stimuli; ``start`` is the place of the first among all."""

    start: int
    stimulus_ids: tuple[str, ...]
    stimulus_paths: tuple[Path, ...]

    @classmethod
    def of(cls, stimuli: Stimuli, places: tuple[int, int]) -> "StimulusRange":
        """From the first place up to the second."""
        of = slice(*places)
        return cls(places[0], stimuli.stimulus_ids[of], stimuli.stimulus_paths[of])

    @property
    def places(self) -> tuple[int, int]:
        """Of the first, and of the one after the last."""
        return self.start, self.start + len(self.stimulus_ids)


def decode_image(path: Path) -> np.ndarray:
    """An image file as uint8 RGB array (height, width, 3).

    Raises:
        RecordingsError: if it does not open.
    """
    try:
        with Image.open(path) as image:
            return np.asarray(image if image.mode == "RGB" else image.convert("RGB"), np.uint8)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        size = f"{path.stat().st_size} bytes" if path.is_file() else "no file"
        raise RecordingsError(
            "the image does not open",
            where=path,
            expected="a whole image (PNG, JPEG, ...)",
            found=f"{size} ({type(error).__name__})",
        ) from None


class DecodedImages:
    """Images in the order of their files; a context manager.

    Args:
        skip_bad: leave out images that do not open, instead of raising.
        ahead: at most so many times as many as were last asked for are decoded and wait, so that
            memory stays flat.

    Attributes:
        skipped: places of the images that were left out.
    """

    def __init__(self, paths: Sequence[Path], skip_bad: bool = False, ahead: int = 2) -> None:
        self.skipped: list[int] = []
        self._paths, self._next, self._skip_bad, self._ahead = paths, 0, skip_bad, ahead
        self._waiting: deque[tuple[int, Future[np.ndarray]]] = deque()
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
        while len(taken) < count:
            while len(self._waiting) < self._ahead * count and self._next < len(self._paths):
                path = self._paths[self._next]
                self._waiting.append((self._next, self._pool.submit(decode_image, path)))
                self._next += 1
            if not self._waiting:
                break
            place, image = self._waiting.popleft()
            try:
                taken.append((place, image.result()))
            except RecordingsError:
                if not self._skip_bad:
                    raise
                self.skipped.append(place)
        return taken


def n_cores() -> int:
    """Those that this process may use, where the system says so; at most OMP_NUM_THREADS, where set.

    Ray and batch systems set that variable to the cores that they give a task.
    """
    here = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    given = os.environ.get("OMP_NUM_THREADS", "")
    return min(here, int(given)) if given.isdigit() and int(given) else here


def of_one_size(images: Sequence[np.ndarray]) -> Iterator[tuple[list[int], np.ndarray]]:
    """Stack images of one size.

    Yields:
        Places in ``images``, and a batch: uint8 (n, height, width, 3).
    """
    places: dict[tuple[int, ...], list[int]] = {}
    for place, image in enumerate(images):
        places.setdefault(image.shape, []).append(place)
    for group in places.values():
        yield group, np.stack([images[place] for place in group])


class ImageFolder:
    """All images in a folder and its subfolders, in the order of their paths."""

    def __init__(self, folder: Path) -> None:
        known = Image.registered_extensions()
        found = [path for path in sorted(folder.rglob("*")) if path.suffix.lower() in known]
        if not found:
            raise RecordingsError(
                "there are no images here",
                where=folder,
                expected="a folder with image files (PNG, JPEG, ...)",
                found="no such folder" if not folder.is_dir() else "none",
            )
        self.stimulus_paths = tuple(found)
        self.stimulus_ids = tuple(path.relative_to(folder).as_posix() for path in found)

    @cached_property
    def stimuli_fingerprint(self) -> str:
        """SHA-256 over the ids and the bytes of all images, in order."""
        hashes = map(sha256_of_file, self.stimulus_paths)
        return sha256_of_json([list(pair) for pair in zip(self.stimulus_ids, hashes, strict=True)])
