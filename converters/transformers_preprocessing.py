"""The preprocessing of a transformers image processor, as this toolkit writes it."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from nrp_onnx.backbone.preprocessing import Preprocessing, preprocessing_from_json
from nrp_onnx.converters.request import Request
from nrp_onnx.converters.source_preprocessing import checked_crop, resample_code, unsupported

#: Steps that change pixels and that the toolkit's preprocessing does not have.
_OTHER_STEPS = ("do_pad", "rescale_offset", "do_thumbnail", "do_align_long_axis", "do_crop_margin")
#: From this size on, ConvNeXT's processor resizes without cutting.
_UNCUT = 384


def preprocessing_of(settings: Mapping[str, Any], request: Request, where: str) -> Preprocessing:
    """Read what ``image_processor.to_dict()`` holds.

    ``crop_pct`` is that of the ConvNeXT processor: below 384 pixels the shorter edge becomes
    size / crop_pct and the size is cut from the centre; from 384 on the image is only resized.

    Raises:
        OptionError: for a step or a size that the toolkit cannot carry out.
    """
    for step in _OTHER_STEPS:
        if settings.get(step):
            raise unsupported(step, where)
    settings = {key: value for key, value in settings.items() if value is not None}
    resample = resample_code(settings.get("resample", 2), request, where)
    # A processor without such a setting does not take the step.
    steps = dict.fromkeys(("do_resize", "do_center_crop", "do_rescale", "do_normalize"), False)
    settings = {**steps, **settings, "resample": resample}
    settings |= _cut(settings, where) if "crop_pct" in settings else {}
    for key in ("size", "crop_size"):
        if key in settings and isinstance(settings[key], Mapping):
            settings[key] = {k: v for k, v in settings[key].items() if v is not None}
            if "longest_edge" in settings[key]:
                raise unsupported(f"{key} {settings[key]}", where)
    spec = preprocessing_from_json(settings, where)
    if settings.get("do_flip_channel_order"):
        spec = replace(spec, channel_order="BGR")
        if settings.get("do_normalize"):
            raise unsupported("do_flip_channel_order beside do_normalize", where)
    checked: Preprocessing = checked_crop(spec, where)
    return checked


def _cut(settings: Mapping[str, Any], where: str) -> dict[str, Any]:
    edge = (settings.get("size") or {}).get("shortest_edge")
    if edge is None:
        raise unsupported(f"crop_pct beside size {settings.get('size')}", where)
    if edge >= _UNCUT:
        return {"size": {"height": edge, "width": edge}, "do_center_crop": False}
    return {
        "size": {"shortest_edge": int(edge / settings["crop_pct"])},
        "do_center_crop": True,
        "crop_size": {"height": edge, "width": edge},
    }
