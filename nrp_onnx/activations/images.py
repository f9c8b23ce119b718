"""Decodes stimuli to uint8 RGB and batches those of one size."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path

import numpy as np
from PIL import Image

from nrp_onnx.errors import RecordingsError


def decode_image(path: Path) -> np.ndarray:
    """An image file as uint8 RGB array (height, width, 3).

    Raises:
        RecordingsError: if it does not open.
    """
    try:
        with Image.open(path) as image:
            return np.asarray(image.convert("RGB"), np.uint8)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        size = f"{path.stat().st_size} bytes" if path.is_file() else "no file"
        raise RecordingsError(
            "the image does not open",
            where=path,
            expected="a whole image (PNG, JPEG, ...)",
            found=f"{size} ({type(error).__name__})",
        ) from None


def image_batches(paths: Sequence[Path], batch_size: int) -> Iterator[tuple[list[int], np.ndarray]]:
    """Decode images in threads, ahead of their use.

    Yields:
        Places in ``paths``, and uint8 images of one size, shape (batch, height, width, 3). Images
        are taken in order; a batch ends early where the size changes.
    """
    places: list[int] = []
    images: list[np.ndarray] = []
    with ThreadPoolExecutor() as pool:
        for place, image in enumerate(_decoded_ahead(pool, paths, 2 * batch_size)):
            if images and (len(images) == batch_size or image.shape != images[0].shape):
                yield places, np.stack(images)
                places, images = [], []
            places.append(place)
            images.append(image)
    if images:
        yield places, np.stack(images)


def _decoded_ahead(
    pool: ThreadPoolExecutor, paths: Sequence[Path], ahead: int
) -> Iterator[np.ndarray]:
    """Decoded images in order, at most ``ahead`` of them waiting, so that memory stays flat."""
    todo = iter(paths)
    waiting = [pool.submit(decode_image, path) for path in islice(todo, ahead)]
    while waiting:
        yield waiting.pop(0).result()
        waiting.extend(pool.submit(decode_image, path) for path in islice(todo, 1))
