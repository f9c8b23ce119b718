"""What is done to an image before the backbone sees it, as a spec that travels as JSON.

The keys are those of Hugging Face's ``preprocessor_config.json``, plus ``visual_degrees_ratio``,
``layout``, ``channel_order`` and ``dtype``. The nodes that carry it out are in `nrp_onnx.backbone.preprocessing_nodes`.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from msgspec import Meta

from nrp_onnx.errors import OptionError
from nrp_onnx.file_schema import Key, checked_table, read_key

#: Shares of red, green and blue in luminance: ITU-R 601, as Pillow's ``convert("L")``.
LUMINANCE = (0.299, 0.587, 0.114)
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
        channel_order: ``RGB`` or ``BGR``, as the model takes them; ``L`` for a model of one channel,
            which gets luminance (`LUMINANCE`), with the luminance of image_mean and image_std.
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
    channel_order: Literal["RGB", "BGR", "L"] = "RGB"
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
        self, height: int | None, width: int | None, layout: Any, dtype: Any, channels: int = 3
    ) -> "Preprocessing":
        """Fill what is left open from the model's input; what the spec says stays.

        A model of one channel gets luminance, whatever the order of three would have been.
        """
        size = self.size
        if size is None and height is not None and width is not None:
            size = (height, width)
        order = "L" if channels == 1 else self.channel_order
        return replace(
            self,
            size=size,
            channel_order=order,
            layout=self.layout or layout,
            dtype=self.dtype or dtype,
        )


def _of_channels(values: list[float]) -> tuple[float, float, float]:
    """Numbers of R, G and B; one, as for grey images, is that of all three."""
    red, green, blue = values * 3 if len(values) == 1 else values
    return red, green, blue


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


_Over0 = Annotated[float, Meta(gt=0)]
#: What is done with null in a ``preprocessor_config.json``: a step is left out.
_Flag = bool | None
_KEYS = {
    "visual_degrees_ratio": Key(
        Annotated[float, Meta(gt=0, le=180)], "a number over 0, at most 180", 1.0
    ),
    "do_resize": Key(_Flag, "true or false", True),
    "resample": Key(Literal[tuple(RESAMPLE)], " or ".join(map(str, RESAMPLE)), 2),
    "do_center_crop": Key(_Flag, "true or false", False),
    "do_rescale": Key(_Flag, "true or false", True),
    "rescale_factor": Key(_Over0, "a positive number", 1 / 255),
    "do_normalize": Key(_Flag, "true or false", True),
    "image_mean": Key(
        list[float],
        "three numbers, in the order R, G, B, or one",
        None,
        is_right=lambda values: len(values) in (1, 3),
    ),
    "image_std": Key(
        list[_Over0],
        "three positive numbers, in the order R, G, B, or one",
        None,
        is_right=lambda values: len(values) in (1, 3),
    ),
    "channel_order": Key(Literal["RGB", "BGR", "L"], "'RGB' or 'BGR' or 'L'", "RGB"),
    "layout": Key(Literal["NCHW", "NHWC"], "'NCHW' or 'NHWC' or None", None),
    "dtype": Key(Literal["float32", "float16"], "'float32' or 'float16' or None", None),
}


def preprocessing_from_json(content: Mapping[str, Any], where: object) -> Preprocessing:
    """Read a spec written by `Preprocessing.to_json` or a ``preprocessor_config.json``.

    Raises:
        OptionError: for a value that makes no sense; it names the key.
    """
    table = checked_table(content, _KEYS, where, OptionError)

    def value(name: str) -> Any:
        return read_key(table, name, _KEYS, where, OptionError)

    spec = Preprocessing(visual_degrees_ratio=value("visual_degrees_ratio"))
    if value("do_resize") and table.get("size") is not None:
        spec = replace(spec, size=_size(table, "size", where), resample=value("resample"))
    if value("do_center_crop"):
        crop = _size(table, "crop_size", where)
        spec = replace(spec, crop_size=(crop, crop) if isinstance(crop, int) else crop)
    if value("do_rescale"):
        spec = replace(spec, rescale_factor=value("rescale_factor"))
    if value("do_normalize"):
        mean, std = value("image_mean") or [0.0], value("image_std") or [1.0]
        spec = replace(spec, image_mean=_of_channels(mean), image_std=_of_channels(std))
    return replace(spec, **{name: value(name) for name in ("channel_order", "layout", "dtype")})


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


def _size(table: Mapping[str, Any], key: str, where: object) -> tuple[int, int] | int:
    match table.get(key):
        case int() as edge if edge > 0:
            return (edge, edge)
        case {"shortest_edge": int(edge)} if edge > 0:
            return edge
        case {"height": int(height), "width": int(width)} if height > 0 and width > 0:
            return (height, width)
        case value:
            raise OptionError(
                f"the key {key} is wrong",
                where=where,
                expected='{"height": H, "width": W} or {"shortest_edge": S}',
                found=repr(value),
            )
