"""The preprocessing that a source of named models publishes, as this toolkit can carry it out."""

from dataclasses import replace

from nrp_converters.request import Request
from nrp_onnx.backbone.preprocessing import RESAMPLE, Preprocessing
from nrp_onnx.errors import OptionError

#: Names of interpolations, as torchvision and timm use them, and Pillow's numbers of them.
_PILLOW = {
    "nearest": 0,
    "nearest-exact": 0,
    "lanczos": 1,
    "bilinear": 2,
    "bicubic": 3,
    "box": 4,
    "hamming": 5,
}


def for_size(spec: Preprocessing, size: tuple[int, int], where: str) -> Preprocessing:
    """The preprocessing that gives images of another size, with the same share cut off.

    Raises:
        OptionError: if it keeps proportions and the size is not square.
    """
    given = spec.crop_size or spec.size
    if given is None or given == size:
        return spec
    if spec.crop_size is None:
        return replace(spec, size=size)
    if isinstance(spec.size, tuple):
        height, width = (
            round(new * old / crop)
            for new, old, crop in zip(size, spec.size, spec.crop_size, strict=True)
        )
        return replace(spec, size=(height, width), crop_size=size)
    if size[0] != size[1] or spec.crop_size[0] != spec.crop_size[1] or spec.size is None:
        raise OptionError(
            "its preprocessing cuts a square out of the image",
            where=where,
            expected="a square --input-size",
            found=" x ".join(map(str, size)),
            fix="Give the whole preprocessing with --preprocess.",
        )
    return replace(spec, size=round(spec.size * size[0] / spec.crop_size[0]), crop_size=size)


def checked_crop(spec: Preprocessing, where: str) -> Preprocessing:
    """The preprocessing, if what it cuts out lies within the image.

    Raises:
        OptionError: if the source would pad the image.
    """
    if spec.crop_size is not None and spec.size is not None:
        edges = spec.size if isinstance(spec.size, tuple) else (spec.size, spec.size)
        if any(crop > edge for crop, edge in zip(spec.crop_size, edges, strict=True)):
            raise unsupported(f"a crop of {spec.crop_size} from an image of {spec.size}", where)
    return spec


def resample_code(interpolation: str | int, request: Request, where: str) -> int:
    """Pillow's number of an interpolation; one that ONNX lacks gives its nearest, which is said.

    Args:
        interpolation: its name, or Pillow's number.

    Raises:
        OptionError: if there is no such interpolation.
    """
    code = _PILLOW.get(interpolation) if isinstance(interpolation, str) else int(interpolation)
    if code not in _PILLOW.values():
        raise unsupported(f"the interpolation {interpolation!r}", where)
    assert code is not None
    if code in RESAMPLE:
        return code
    name = next(name for name, number in _PILLOW.items() if number == code)
    nearest = "bicubic" if name == "lanczos" else "bilinear"
    request.notes.say(f"{where} resizes by {name}, which ONNX does not have: taking {nearest}")
    return _PILLOW[nearest]


def unsupported(what: str, where: str) -> OptionError:
    """The error for a preprocessing that the toolkit cannot carry out."""
    return OptionError(
        "the source's preprocessing cannot be carried out here",
        where=where,
        expected="resize, centre crop, rescale and normalise",
        found=what,
        fix="Name another one with --preprocess.",
    )
