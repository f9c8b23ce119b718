"""The preprocessing that a model of transformers publishes in its preprocessor_config.json."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from nrp_converters.request import Request
from nrp_converters.source_preprocessing import checked_crop, resample_code, unsupported
from nrp_onnx.backbone.preprocessing import Preprocessing, preprocessing_from_json
from nrp_onnx.errors import ModelError

_FILE = "preprocessor_config.json"

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


@dataclass(frozen=True)
class Settings:
    """What a preprocessor_config.json says; ``known`` if its processor's defaults are in it."""

    values: dict[str, Any]
    known: bool


def read_settings(
    transformers: Any, name: str, options: dict[str, Any], where: str
) -> Settings | None:
    """The settings of the model's image processor.

    Where transformers finds no processor, because the file lacks its type or names an unknown one,
    they are the file's own keys.

    Returns:
        None where there is no such file.

    Raises:
        ModelError: if there is one in a folder and it is no JSON.
    """
    try:
        # Pillow's processors, so that torchvision is not needed; only their settings are read.
        processor = transformers.AutoImageProcessor.from_pretrained(name, backend="pil", **options)
        return Settings(processor.to_dict(), known=True)
    except (OSError, ValueError, KeyError):  # there is no such file, or no processor of that name
        mixin = transformers.ImageProcessingMixin
    try:
        values, _ = mixin.get_image_processor_dict(name, **options)
    except (OSError, ValueError) as error:
        if not (Path(name) / _FILE).is_file():
            return None
        raise ModelError(
            "the preprocessing cannot be read",
            where=f"{where}, {_FILE}",
            expected="JSON",
            found=" ".join(str(error).split())[:200],
            fix="Mend or remove it, and name the preprocessing with --preprocess.",
        ) from error
    return Settings(_with_steps(values), known=False)


def own_preprocessing(settings: Settings, request: Request, where: str) -> Preprocessing:
    """The preprocessing of such settings; keys that are taken without a processor are said.

    Raises:
        OptionError: for a step or a size that the toolkit cannot carry out.
    """
    if not settings.known:
        request.notes.say(
            f"{where}: its preprocessor_config.json names no image processor that transformers "
            "knows: its mean, std and size are taken as they stand"
        )
    return preprocessing_of(settings.values, request, where)


def _with_steps(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of a file whose processor is not known, with its steps named.

    A step is taken where its own key says so, or where that is missing and the file has its numbers.
    Values are divided by 255 unless the file says otherwise. With a crop, a size that is one number
    is that of the shorter edge, as transformers has it.
    """
    settings = dict(settings)
    settings.setdefault("do_resize", settings.get("size") is not None)
    settings.setdefault("do_center_crop", settings.get("crop_size") is not None)
    settings.setdefault("do_rescale", True)
    settings.setdefault("do_normalize", settings.get("image_mean") is not None)
    if settings["do_center_crop"] and isinstance(settings.get("size"), int):
        settings["size"] = {"shortest_edge": settings["size"]}
    return settings
