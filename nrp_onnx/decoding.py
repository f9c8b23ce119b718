"""How an image file becomes uint8 RGB: one rule for every command that looks at images.

8-bit images are taken as they are. Others become 8-bit as a person sees them: 16-bit grey over 257,
floats from 0 to 1 times 255, palettes, CMYK and grey as RGB, transparent pixels over `BACKGROUND`,
cameras' images turned upright. What has no one such picture is refused: animations, and numbers
whose range is not known.
"""

import re
import struct
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from PIL import Image

from nrp_onnx.errors import RecordingsError

#: What transparent pixels are shown on: mid grey, as the screen around an image.
BACKGROUND = (128, 128, 128)
#: The rules, as activations and results record them. ``version`` is raised with every change that
#: gives other pixels, so that activations of other pixels are extracted anew.
RULES: dict[str, Any] = {"version": 2, "transparent_over": list(BACKGROUND), "exif_turned": True}

#: What Pillow raises for damaged files; its readers do not agree on one.
NO_IMAGE = (
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
    KeyError,
    IndexError,
    TypeError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)
_ORIENTATION = 0x0112
#: Where Pillow keeps what may say an orientation; that of TIFF is undone as the file is read.
_WITH_ORIENTATION = {"exif", "xmp", "XML:com.adobe.xmp", "Raw profile type exif"}
_TURN = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
#: Pillow reads these without a place for 16 bits a channel: the upper byte of each is left.
_DEEP = re.compile(r";16[BLN]")


@dataclass(frozen=True, eq=False)
class Decoded:
    """An image and what its file held.

    Attributes:
        pixels: uint8 RGB (height, width, 3).
        mode: Pillow's name of the file's colours, such as ``RGB``, ``P`` or ``I;16``.
        bits: a channel, in the file.
        transparent: whether a pixel is not wholly opaque, and so shows `BACKGROUND`.
        turned: whether EXIF says that the camera was not held upright.
    """

    pixels: np.ndarray
    mode: str
    bits: int
    transparent: bool
    turned: bool


def decode_image(path: Path) -> np.ndarray:
    """An image file as uint8 RGB array (height, width, 3).

    Raises:
        RecordingsError: if it does not open, is an animation, or has numbers of an unknown range.
    """
    return decode(path, path).pixels


def decode(source: Path | bytes, where: object) -> Decoded:
    """An image with what its file held.

    Args:
        source: the file, or its bytes.
        where: the name of it in messages.

    Raises:
        RecordingsError: see `decode_image`.
    """
    try:
        with Image.open(BytesIO(source) if isinstance(source, bytes) else source) as image:
            _check_single(image, where)
            mode, bits = image.mode, _bits(image)
            image.load()
            turn = _TURN.get(_orientation(image))
            if mode == "RGB" and turn is None and "transparency" not in image.info:
                return Decoded(np.asarray(image, np.uint8), mode, bits, False, False)
            upright = image if turn is None else image.transpose(turn)
            pixels, transparent = _as_rgb(upright, image, where)
            return Decoded(pixels, mode, bits, transparent, turn is not None)
    except NO_IMAGE as error:
        if isinstance(source, bytes):
            size = f"{len(source)} bytes"
        else:
            size = f"{source.stat().st_size} bytes" if source.is_file() else "no file"
        raise RecordingsError(
            "the image does not open",
            where=where,
            expected="a whole image (PNG, JPEG, ...)",
            # Pillow names its own buffer where it recognises no format.
            found=f"{size} ({type(error).__name__})",
        ) from None


def image_size(path: Path) -> tuple[int, int]:
    """Width and height of an image as it is shown, in pixels, from its header.

    Raises:
        RecordingsError: if it does not open.
    """
    try:
        with Image.open(path) as image:
            turned = image.format in ("JPEG", "MPO") and _orientation(image) >= 5
            return image.size[::-1] if turned else image.size
    except NO_IMAGE as error:
        size = path.stat().st_size if path.is_file() else 0
        raise RecordingsError(
            "the image does not open",
            where=path,
            expected="a whole image (PNG, JPEG, ...)",
            found=f"{size} bytes ({type(error).__name__})",
        ) from None


def is_hidden(name: str) -> bool:
    """Whether a file is none of the user's: macOS leaves ``._1.png`` and ``__MACOSX/`` beside images.

    Args:
        name: relative to the folder or archive, with / between folders.
    """
    *folders, last = PurePosixPath(name).parts or ("",)
    return last.startswith(".") or "__MACOSX" in folders


def natural_order(names: Iterable[str]) -> list[str]:
    """Sort names as people count: stim2 before stim10.

    Only where all names are alike but for their numbers, so that the order is clear; else as text.

    Example:
        >>> natural_order(["stim10.png", "stim2.png"])
        ['stim2.png', 'stim10.png']
        >>> natural_order(["b2.png", "a10.png"])
        ['a10.png', 'b2.png']
    """
    given = sorted(names)
    if not counts_up(given):
        return given
    return sorted(given, key=lambda name: [int(number) for number in _NUMBER.findall(name)])


_NUMBER = re.compile(r"[0-9]+")


def counts_up(names: Iterable[str]) -> bool:
    """Whether names differ in their numbers only, and each in another."""
    given = list(names)
    shapes = {_NUMBER.sub("0", str(PurePosixPath(name).with_suffix(""))) for name in given}
    numbers = {tuple(map(int, _NUMBER.findall(name))) for name in given}
    return len(shapes) == 1 and len(numbers) == len(given)


def _check_single(image: Image.Image, where: object) -> None:
    # A JPEG of a telephone (MPO) carries small or depth pictures behind the one that is shown.
    n_frames = 1 if image.format == "MPO" else getattr(image, "n_frames", 1)
    if n_frames > 1:
        raise RecordingsError(
            "the file holds more than one image",
            where=where,
            expected="one frame or page",
            found=f"{n_frames}",
            fix="Save the frame that was shown as a file of its own.",
        )


def _bits(image: Image.Image) -> int:
    if image.mode in ("1", "I", "F"):
        return 1 if image.mode == "1" else 32
    tiles = getattr(image, "tile", None)
    raw = str(tiles[0]) if tiles else ""
    return 16 if image.mode.startswith("I;16") or _DEEP.search(raw) else 8


def _orientation(image: Image.Image) -> int:
    if not _WITH_ORIENTATION & image.info.keys():  # most have none, and to look takes time
        return 1
    try:
        found = image.getexif().get(_ORIENTATION, 1)
    except NO_IMAGE:  # the pixels are whole, and viewers show them as they are
        return 1
    return found if isinstance(found, int) else 1


def _as_rgb(image: Image.Image, file: Image.Image, where: object) -> tuple[np.ndarray, bool]:
    """The pixels as uint8 RGB, and whether some are transparent; ``file`` is it as it was read."""
    mode, clear = image.mode, file.info.get("transparency")
    if mode == "F" or mode.startswith("I"):
        values = np.asarray(image)
        grey = _floats(values, where) if mode == "F" else _integers(values, file, where)
        rgb = np.repeat(grey[..., None], 3, axis=2)
        if not isinstance(clear, int) or not (values == clear).any():
            return rgb, False
        return np.where((values == clear)[..., None], np.array(BACKGROUND, np.uint8), rgb), True
    if mode in ("LAB", "HSV"):
        raise RecordingsError(
            f"colours of the kind {mode} have no one RGB",
            where=where,
            expected="grey, RGB or CMYK, with or without transparency",
            fix="Save it as RGB.",
        )
    if not image.has_transparency_data:
        if mode not in ("1", "L", "P", "RGB", "CMYK", "YCbCr", "RGBX"):
            image = image.convert("L" if mode == "La" else "RGBA")
        return np.asarray(image.convert("RGB"), np.uint8), False
    if mode == "La":
        image = image.convert("LA")
    rgba = np.asarray(image.convert("RGBA"), np.uint16)
    rgb, alpha = rgba[..., :3], rgba[..., 3:]
    if (alpha == 255).all():
        return rgb.astype(np.uint8), False
    over = rgb * alpha + np.array(BACKGROUND, np.uint16) * (255 - alpha)
    return ((over + 127) // 255).astype(np.uint8), True


def _floats(values: np.ndarray, where: object) -> np.ndarray:
    low, high = float(values.min()), float(values.max())
    if not (low >= 0 and high <= 1):  # NaN, too
        raise RecordingsError(
            "it is not clear which grey these numbers are",
            where=where,
            expected="floats from 0 (black) to 1 (white)",
            found=f"floats from {low:g} to {high:g}",
            fix="Save it with 8 or 16 bits.",
        )
    scaled: np.ndarray = np.rint(255 * values.astype(np.float64)).astype(np.uint8)
    return scaled


def _integers(values: np.ndarray, file: Image.Image, where: object) -> np.ndarray:
    # Pillow gives PGM files of 16 bits as 32, scaled to 65,535.
    sixteen = file.mode.startswith("I;16") or file.format in ("PNG", "PPM")
    if not sixteen:
        raise RecordingsError(
            "it is not clear which grey these numbers are",
            where=where,
            expected="integers of 8 or 16 bits",
            found=f"32 bits, from {values.min()} to {values.max()}",
            fix="Save it with 8 or 16 bits.",
        )
    scaled: np.ndarray = ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)
    return scaled
