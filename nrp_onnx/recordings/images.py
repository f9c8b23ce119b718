"""Whether image files open."""

from io import BytesIO
from pathlib import Path

from PIL import Image

from nrp_onnx.errors import RecordingsError

_NO_IMAGE = (OSError, ValueError, SyntaxError, Image.DecompressionBombError)


def check_image(data: bytes, where: object) -> None:
    """Decode an image fully.

    Raises:
        RecordingsError: if it does not open.
    """
    try:
        with Image.open(BytesIO(data)) as image:
            image.load()
    except _NO_IMAGE as error:
        raise _does_not_open(where, len(data), error) from None


def image_size(path: Path) -> tuple[int, int]:
    """Width and height of an image file, in pixels, from its header.

    Raises:
        RecordingsError: if it does not open.
    """
    try:
        with Image.open(path) as image:
            return image.size
    except _NO_IMAGE as error:
        size = path.stat().st_size if path.is_file() else 0
        raise _does_not_open(path, size, error) from None


def _does_not_open(where: object, n_bytes: int, error: Exception) -> RecordingsError:
    return RecordingsError(
        "the image does not open",
        where=where,
        expected="a whole image (PNG, JPEG, ...)",
        # Pillow names its own buffer where it recognises no format.
        found=f"{n_bytes} bytes ({type(error).__name__})",
    )
