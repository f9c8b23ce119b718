"""What is done to an image before the backbone sees it, as a spec that travels as JSON.

The keys are those of Hugging Face's ``preprocessor_config.json``, plus ``visual_degrees_ratio``,
``layout``, ``channel_order`` and ``dtype``. The nodes that carry it out are in `nrp_onnx.backbone.preprocessing_nodes`.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from nrp_onnx.errors import OptionError

#: Pillow's numbers of the interpolations that can be had in an ONNX graph.
RESAMPLE = {0: "nearest", 2: "linear", 3: "cubic"}


@dataclass(frozen=True)
class Preprocessing:
    """Steps from a uint8 RGB image to the backbone's input, in the order of the attributes.

    Attributes:
        visual_degrees_ratio: degrees of the visual field that the model's input covers, over those
            that the image filled when it was shown: over 1, the image is put on the middle of a grey
            (128) canvas that many times its size; under 1, that part is cut from its middle.
        size: (height, width) in pixels that the image is resized to, or one number for its shorter
            edge (its proportions kept); None takes the size of the model's input.
        resample: 0 nearest, 2 bilinear, 3 bicubic, as in Pillow; with antialiasing when shrinking.
        crop_size: (height, width) that is then cut from the centre, or None.
        rescale_factor: what the values 0 to 255 are multiplied by.
        image_mean, image_std: per channel, always in the order R, G, B: (x - mean) / std.
        channel_order: ``RGB`` or ``BGR``, as the model takes them.
        layout: ``NCHW`` or ``NHWC``; None takes that of the model's input.
        dtype: ``float32`` or ``float16``; None takes that of the model's input.
    """

    visual_degrees_ratio: float = 1.0
    size: tuple[int, int] | int | None = None
    resample: int = 2
    crop_size: tuple[int, int] | None = None
    rescale_factor: float = 1.0
    image_mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    image_std: tuple[float, float, float] = (1.0, 1.0, 1.0)
    channel_order: Literal["RGB", "BGR"] = "RGB"
    layout: Literal["NCHW", "NHWC"] | None = None
    dtype: Literal["float32", "float16"] | None = None

    def to_json(self) -> dict[str, Any]:
        """The spec with the keys of ``preprocessor_config.json``."""
        size: dict[str, int] | None
        if isinstance(self.size, int):
            size = {"shortest_edge": self.size}
        else:
            size = None if self.size is None else _height_width(self.size)
        return {
            "visual_degrees_ratio": self.visual_degrees_ratio,
            "do_resize": True,
            "size": size,
            "resample": self.resample,
            "do_center_crop": self.crop_size is not None,
            "crop_size": None if self.crop_size is None else _height_width(self.crop_size),
            "do_rescale": self.rescale_factor != 1.0,
            "rescale_factor": self.rescale_factor,
            "do_normalize": (self.image_mean, self.image_std) != ((0.0,) * 3, (1.0,) * 3),
            "image_mean": list(self.image_mean),
            "image_std": list(self.image_std),
            "channel_order": self.channel_order,
            "layout": self.layout,
            "dtype": self.dtype,
        }

    def for_input(
        self, height: int | None, width: int | None, layout: Any, dtype: Any
    ) -> "Preprocessing":
        """Fill what is left open from the model's input; what the spec says stays."""
        size = self.size
        if size is None and height is not None and width is not None:
            size = (height, width)
        return replace(self, size=size, layout=self.layout or layout, dtype=self.dtype or dtype)


def _height_width(size: tuple[int, int]) -> dict[str, int]:
    return {"height": size[0], "width": size[1]}


#: The four conventions that published weights use.
PRESETS: dict[str, Preprocessing] = {
    "imagenet": Preprocessing(
        rescale_factor=1 / 255,
        image_mean=(0.485, 0.456, 0.406),
        image_std=(0.229, 0.224, 0.225),
    ),
    "tf": Preprocessing(
        rescale_factor=1 / 255, image_mean=(0.5, 0.5, 0.5), image_std=(0.5, 0.5, 0.5)
    ),
    "caffe": Preprocessing(image_mean=(123.68, 116.779, 103.939), channel_order="BGR"),
    "raw": Preprocessing(),
}


def preprocessing_from_json(content: Mapping[str, Any], where: object) -> Preprocessing:
    """Read a spec written by `Preprocessing.to_json` or a ``preprocessor_config.json``.

    Raises:
        OptionError: for a value that makes no sense; it names the key.
    """
    if not isinstance(content, Mapping):
        raise OptionError(
            "this is no preprocessing", where=where, expected="a JSON object", found=type(content)
        )
    ratio = content.get("visual_degrees_ratio", 1.0)
    if not isinstance(ratio, int | float) or not 0 < ratio <= 180:
        raise _wrong("visual_degrees_ratio", where, "a number over 0, at most 180", ratio)
    spec = Preprocessing(visual_degrees_ratio=float(ratio))
    if content.get("do_resize", True) and content.get("size") is not None:
        spec = replace(spec, size=_size(content["size"], "size", where))
        spec = replace(spec, resample=_one_of(content, "resample", tuple(RESAMPLE), 2, where))
    if content.get("do_center_crop", False):
        crop = _size(content.get("crop_size"), "crop_size", where)
        spec = replace(spec, crop_size=(crop, crop) if isinstance(crop, int) else crop)
    if content.get("do_rescale", True):
        factor = content.get("rescale_factor", 1 / 255)
        if not isinstance(factor, int | float) or factor <= 0:
            raise _wrong("rescale_factor", where, "a positive number", factor)
        spec = replace(spec, rescale_factor=float(factor))
    if content.get("do_normalize", True):
        spec = replace(
            spec,
            image_mean=_three(content, "image_mean", 0.0, where),
            image_std=_three(content, "image_std", 1.0, where),
        )
        if min(spec.image_std) <= 0:
            raise _wrong("image_std", where, "three positive numbers", spec.image_std)
    return replace(
        spec,
        channel_order=_one_of(content, "channel_order", ("RGB", "BGR"), "RGB", where),
        layout=_one_of(content, "layout", ("NCHW", "NHWC", None), None, where),
        dtype=_one_of(content, "dtype", ("float32", "float16", None), None, where),
    )


def read_preprocessing(choice: str) -> Preprocessing:
    """The spec that ``--preprocess`` names: a preset, or a JSON file.

    Raises:
        OptionError: if it is neither, or the file cannot be read.
    """
    if choice in PRESETS:
        return PRESETS[choice]
    path = Path(choice)
    if not path.is_file():
        raise OptionError(
            "no such preprocessing",
            where="--preprocess",
            expected=f"one of {', '.join(PRESETS)}, or a JSON file",
            found=repr(choice),
        )
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise OptionError(
            "this is no JSON",
            where=path,
            expected="the keys of preprocessor_config.json",
            found=error,
        ) from None
    return preprocessing_from_json(content, path)


def _wrong(key: str, where: object, expected: str, found: object) -> OptionError:
    return OptionError(f"the key {key} is wrong", where=where, expected=expected, found=repr(found))


def _one_of(
    content: Mapping[str, Any], key: str, allowed: tuple[Any, ...], default: Any, where: object
) -> Any:
    value = content.get(key, default)
    if value not in allowed:
        raise _wrong(key, where, " or ".join(map(repr, allowed)), value)
    return value


def _three(
    content: Mapping[str, Any], key: str, default: float, where: object
) -> tuple[float, float, float]:
    value = content.get(key)
    if value is None:
        return (default,) * 3
    if not (
        isinstance(value, list | tuple)
        and len(value) == 3
        and all(isinstance(number, int | float) for number in value)
    ):
        raise _wrong(key, where, "three numbers, in the order R, G, B", value)
    return (float(value[0]), float(value[1]), float(value[2]))


def _size(value: Any, key: str, where: object) -> tuple[int, int] | int:
    match value:
        case int() if value > 0:
            return (value, value)
        case {"shortest_edge": int(edge)} if edge > 0:
            return edge
        case {"height": int(height), "width": int(width)} if height > 0 and width > 0:
            return (height, width)
        case _:
            raise _wrong(key, where, '{"height": H, "width": W} or {"shortest_edge": S}', value)
