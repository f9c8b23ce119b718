"""Converts models of Hugging Face transformers, with their preprocessing."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from nrp_converters.converted_model import ConvertedModel
from nrp_converters.request import Request
from nrp_converters.source_preprocessing import checked_crop, resample_code, unsupported
from nrp_converters.specs import quiet, reachable
from nrp_converters.torch.modules import seeded
from nrp_converters.torch.named_models import convert_named, no_weights
from nrp_onnx.backbone.preprocessing import Preprocessing, preprocessing_from_json
from nrp_onnx.errors import ModelError, OptionError
from nrp_onnx.packages import imported

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


_INSTALL = "Install it: pip install 'nrp-onnx[transformers]'."
_FIX = (
    "Give a local folder made by save_pretrained, or a family such as hf:resnet, hf:vit, "
    "hf:convnext or hf:swin with --weights none."
)


def from_spec(name: str, request: Request) -> ConvertedModel:
    """Convert a model by its hub id, from a folder of ``save_pretrained``, or by its family.

    It is the image classifier where its configuration has that head, else the bare model. With
    ``--weights none`` only the configuration is read; NAME may then be a family such as ``vit``,
    whose default configuration needs no network.

    Raises:
        OptionError, ModelError: if transformers is missing, there is no such model, its files
            cannot be downloaded, it takes no images alone, or cannot be converted.
    """
    transformers = imported("transformers", _INSTALL)
    folder = Path(name).is_dir()
    # A path of the user's machine has no place in a file that is passed on.
    spec = f"hf:{Path(name).resolve().name if folder else name}"
    if request.weights not in (None, "none"):
        raise OptionError(
            "there are no such weights",
            where=spec,
            expected="none, or no --weights: they come with the hub id or the folder",
            found=repr(request.weights),
        )
    source: dict[str, Any] = {"spec": spec, "transformers": str(transformers.__version__)}
    with seeded(request.seed), _silent(transformers), quiet():
        if request.weights == "none" and not folder and name in transformers.CONFIG_MAPPING:
            config, options = transformers.AutoConfig.for_model(name), None
        else:
            options = _options(folder)
            config = _read(transformers.AutoConfig, name, options, spec)
        auto = _head(transformers, config)
        if request.weights == "none":
            module = _built(auto, config, spec)
            source |= {"weights": "none", "seed": request.seed}
        else:
            module, missing = _loaded(auto, name, options or {}, spec)
            source |= {"weights": "folder" if folder else name}
            if getattr(config, "_commit_hash", None):
                source["revision"] = config._commit_hash
            if missing:
                source |= {"weights_missing": missing, "seed": request.seed}
        _check_takes_images(module, spec)
        own = None
        if request.preprocessing is None and options is not None:
            own = _own_preprocessing(transformers, name, options, request, spec)
    if source.get("weights_missing"):
        request.notes.say(
            f"{spec} has no weights for {', '.join(source['weights_missing'])}: they are random, "
            f"from the seed {request.seed}"
        )
    return convert_named(module, request, own, _size_of(config), source)


def _options(folder: bool) -> dict[str, Any]:
    """Keywords for every ``from_pretrained``: no code of others, no retries without a network."""
    hub = imported("huggingface_hub", _INSTALL).constants.ENDPOINT
    return {
        "trust_remote_code": False,
        "local_files_only": folder or not reachable(hub),
    }


def _read(auto: Any, name: str, options: dict[str, Any], where: str) -> Any:
    try:
        return auto.from_pretrained(name, **options)
    except Exception as error:  # OSError, ValueError, or the hub client's own
        if options["local_files_only"] and not Path(name).is_dir():
            raise no_weights(where, "the Hugging Face hub is out of reach", _FIX) from error
        raise ModelError(
            "this is no model that transformers can read",
            where=where,
            expected="a hub id, or a folder made by save_pretrained",
            found=" ".join(str(error).split())[:200],
        ) from error


def _head(transformers: Any, config: Any) -> Any:
    """The class that makes the classifier, or the bare model where the weights have no such head."""
    classifiers = transformers.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING
    named = config.architectures or []
    headed = any("ForImageClassification" in architecture for architecture in named)
    if type(config) in classifiers and (headed or not named):
        return transformers.AutoModelForImageClassification
    return transformers.AutoModel


def _built(auto: Any, config: Any, where: str) -> nn.Module:
    try:
        module: nn.Module = auto.from_config(config)
    except Exception as error:  # a configuration that no model class takes
        raise ModelError(
            "transformers cannot build the model", where=where, found=str(error)[:200]
        ) from error
    return module


def _loaded(
    auto: Any, name: str, options: dict[str, Any], where: str
) -> tuple[nn.Module, list[str]]:
    """The model, and the weights that its files do not have."""
    try:
        module, info = auto.from_pretrained(
            name, **options, dtype=torch.float32, output_loading_info=True
        )
    except Exception as error:
        if Path(name).is_dir():
            raise ModelError(
                "the weights cannot be read",
                where=where,
                expected="a folder made by save_pretrained",
                found=" ".join(str(error).split())[:200],
                fix="Save it again, or convert it with --weights none.",
            ) from error
        raise no_weights(where, error, f"Convert with --weights none. {_FIX}") from error
    return module, sorted(map(str, info["missing_keys"]))


def _check_takes_images(module: nn.Module, where: str) -> None:
    given = getattr(module, "main_input_name", None)
    if given != "pixel_values":
        raise ModelError(
            "the model does not take images alone",
            where=where,
            expected="a model whose main input is pixel_values",
            found=f"{type(module).__name__}, which takes {given}",
        )


def _own_preprocessing(
    transformers: Any, name: str, options: dict[str, Any], request: Request, where: str
) -> Preprocessing | None:
    """From the model's preprocessor_config.json, with the defaults of its image processor."""
    try:
        # Pillow's processors, so that torchvision is not needed; only their settings are read.
        processor = transformers.AutoImageProcessor.from_pretrained(name, backend="pil", **options)
    except (OSError, ValueError, KeyError):  # there is no such file, or no processor of that name
        return None
    own: Preprocessing = preprocessing_of(processor.to_dict(), request, where)
    return own


def _size_of(config: Any) -> tuple[int, int] | None:
    size = getattr(config, "image_size", None)
    if isinstance(size, int):
        return (size, size)
    return (size[0], size[1]) if isinstance(size, list | tuple) and len(size) == 2 else None


@contextmanager
def _silent(transformers: Any) -> Iterator[None]:
    """Without progress bars and messages, which transformers writes past Python's filters."""
    log = transformers.utils.logging
    level, bars = log.get_verbosity(), log.is_progress_bar_enabled()
    log.set_verbosity(logging.CRITICAL)
    log.disable_progress_bar()
    try:
        yield
    finally:
        log.set_verbosity(level)
        if bars:
            log.enable_progress_bar()
