"""Converts models of Hugging Face transformers, with their preprocessing."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from nrp_converters.converted_model import ConvertedModel
from nrp_converters.request import Request
from nrp_converters.specs import quiet, reachable
from nrp_converters.torch.modules import seeded
from nrp_converters.torch.named_models import convert_named, no_weights
from nrp_converters.torch.transformers_preprocessing import own_preprocessing, read_settings
from nrp_onnx.errors import ModelError, OptionError
from nrp_onnx.packages import imported

_INSTALL = "Install it: pip install 'nrp-onnx[transformers]'."
_FIX = (
    "Give a local folder made by save_pretrained, or a family such as hf:resnet, hf:vit, "
    "hf:convnext or hf:swin with --weights none."
)


def from_spec(name: str, request: Request) -> ConvertedModel:
    """Convert a model by its hub id, from a folder of ``save_pretrained``, or by its family.

    It is the image classifier where its configuration has that head, else the bare model; of a
    model of images and text, such as CLIP, the vision tower, which is said. With
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
        tower = _vision_tower(transformers, auto, config)
        if tower is not None:
            source["part"] = f"vision tower of {config.model_type}"
            config = tower
        if request.weights == "none":
            module = _built(auto, config, spec)
            source |= {"weights": "none", "seed": request.seed}
        else:
            given = (options or {}) | ({} if tower is None else {"config": tower})
            module, missing = _loaded(auto, name, given, spec)
            if tower is not None and missing:
                raise ModelError(
                    "the weights of its vision tower are not found",
                    where=spec,
                    expected=f"those of a {type(module).__name__}",
                    found=f"none for {len(missing)} of them, such as {missing[0]}",
                    fix="Convert it from Python: nrp_onnx.convert(model.vision_model).",
                )
            source |= {"weights": "folder" if folder else name}
            if getattr(config, "_commit_hash", None):
                source["revision"] = config._commit_hash
            if missing:
                source |= {"weights_missing": missing, "seed": request.seed}
        _check_takes_images(module, spec)
        settings = None
        if request.preprocessing is None and options is not None:
            settings = read_settings(transformers, name, options, spec)
    # No note is heard while the frameworks are quiet.
    if tower is not None:
        request.notes.say(f"{spec} takes images and text: taking the {source['part']}")
    own = None if settings is None else own_preprocessing(settings, request, spec)
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


def _vision_tower(transformers: Any, auto: Any, config: Any) -> Any:
    """The configuration of the part that takes images; None where the model takes images alone."""
    tower = getattr(config, "vision_config", None)
    bare = auto is transformers.AutoModel
    return tower if bare and type(tower) in transformers.MODEL_MAPPING else None


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
