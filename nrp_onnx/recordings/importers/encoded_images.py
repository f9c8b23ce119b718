"""Images that recordings keep as numbers, encoded as PNG files when they are copied."""

from collections.abc import Callable, Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from nrp_onnx.errors import RecordingsError
from nrp_onnx.recordings.image_files import ImageSource


def encoded_images(
    path: Path, names: Sequence[str], pixels: Callable[[str], np.ndarray]
) -> ImageSource:
    """Images of a file of numbers as a source of PNG files.

    Args:
        path: the file, for messages.
        names: of the images, ending in .png.
        pixels: gives the image of a name, as `as_png` takes it.
    """
    return ImageSource(path, frozenset(names), lambda name: as_png(pixels(name), path, name))


def as_png(pixels: np.ndarray, path: Path, name: str) -> bytes:
    """Encode an image without loss.

    Args:
        pixels: numbers of the shape (height, width), or with 1 or 3 channels as a first or last
            axis. Whole numbers from 0 to 255; other ones are rounded.

    Raises:
        RecordingsError: for another shape, or numbers that are no 8-bit brightness.
    """
    if pixels.ndim == 3 and pixels.shape[0] in (1, 3) and pixels.shape[2] not in (1, 3):
        pixels = pixels.transpose(1, 2, 0)
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[:, :, 0]
    if pixels.ndim != 2 and not (pixels.ndim == 3 and pixels.shape[2] == 3):
        raise RecordingsError(
            "these pixels are no image",
            where=f"{path}, {name}",
            expected="height x width, or with 1 or 3 channels",
            found=f"the shape {pixels.shape}",
        )
    values = pixels.astype(np.float64)
    low, high = (values.min(), values.max()) if values.size else (np.nan, np.nan)
    # In 0 to 1, an image would come out black.
    fraction = pixels.dtype.kind == "f" and high <= 1 and bool((values % 1).any())
    if not (low >= 0 and high <= 255) or fraction:
        raise RecordingsError(
            "these pixels are no 8-bit image",
            where=f"{path}, {name}",
            expected="brightness from 0 to 255",
            found=f"{low:.4g} to {high:.4g}",
        )
    buffer = BytesIO()
    Image.fromarray(np.round(values).astype(np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()
