"""Images of stimuli: which there are, a range of them, and stacked into batches."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np
from PIL import Image

from nrp_onnx.decoding import is_hidden
from nrp_onnx.errors import RecordingsError
from nrp_onnx.files import sha256_of_file, sha256_of_json
from nrp_onnx.image_sets import StoredImage, is_image_set, open_image_set


class Stimuli(Protocol):
    """Images with ids, such as `nrp_onnx.recordings.Recordings`."""

    @property
    def stimulus_ids(self) -> tuple[str, ...]: ...

    @property
    def stimulus_paths(self) -> tuple[Path | StoredImage, ...]: ...

    @property
    def stimuli_fingerprint(self) -> str:
        """SHA-256 over the ids and the bytes of all images, in order."""


@dataclass(frozen=True)
class StimulusRange:
    """Consecutive stimuli; ``start`` is the place of the first among all."""

    start: int
    stimulus_ids: tuple[str, ...]
    stimulus_paths: tuple[Path | StoredImage, ...]

    @classmethod
    def of(cls, stimuli: Stimuli, places: tuple[int, int]) -> "StimulusRange":
        """From the first place up to the second."""
        of = slice(*places)
        return cls(places[0], stimuli.stimulus_ids[of], stimuli.stimulus_paths[of])

    @property
    def places(self) -> tuple[int, int]:
        """Of the first, and of the one after the last."""
        return self.start, self.start + len(self.stimulus_ids)


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
    """All images in a folder and its subfolders, in the order of their paths; hidden files are none."""

    def __init__(self, folder: Path) -> None:
        known = Image.registered_extensions()
        found = [
            path
            for path in sorted(folder.rglob("*"))
            if path.suffix.lower() in known
            and path.is_file()
            and not is_hidden(path.relative_to(folder).as_posix())
        ]
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


class ImagesOfSet:
    """All images of an HDF5 or Parquet file (`nrp_onnx.image_sets`), in the order of its rows."""

    def __init__(self, path: Path) -> None:
        self._set = open_image_set(path)
        self.stimulus_ids = self._set.ids
        self.stimulus_paths = self._set.images

    @cached_property
    def stimuli_fingerprint(self) -> str:
        """SHA-256 over the ids, the bytes of the file, and where the images lie in it."""
        return sha256_of_json(
            [list(self.stimulus_ids), sha256_of_file(self._set.file), self._set.key]
        )


def open_stimuli(path: Path) -> Stimuli:
    """The images of a folder, or of ``FILE.h5``, ``FILE.h5:KEY`` or ``FILE.parquet``.

    Raises:
        RecordingsError, OptionError: if there are none, or the file cannot be read.
    """
    return ImagesOfSet(path) if is_image_set(path) else ImageFolder(path)
