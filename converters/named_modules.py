"""What the sources of named PyTorch models share: their package, their preprocessing, the network."""

import difflib
import importlib
import logging
import urllib.error
import urllib.request
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from types import ModuleType
from typing import Any

import torch
from torch import nn

from nrp_onnx.backbone.preprocessing import PRESETS, RESAMPLE, Preprocessing
from nrp_onnx.converters.converted_model import ConvertedModel
from nrp_onnx.converters.request import Request
from nrp_onnx.converters.torch import convert
from nrp_onnx.errors import ModelError, OptionError

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
_SECONDS = 10


def convert_named(
    module: nn.Module,
    request: Request,
    own: Preprocessing | None,
    size: tuple[int, int] | None,
    source: Mapping[str, Any],
) -> ConvertedModel:
    """Convert a module that was made by name.

    Args:
        own: the preprocessing that the source publishes for it, or None; a preprocessing in the
            request goes before it.
        size: (height, width) that the module takes where neither says it, or None.
        source: where it comes from, for the metadata.
    """
    where = str(source["spec"])
    spec = request.preprocessing or own
    if spec is None:
        spec = PRESETS["imagenet"]
        request.notes.say(
            "the source names no preprocessing: taking imagenet (RGB 0-1, ImageNet mean and std); "
            "set it with --preprocess"
        )
    given = spec.crop_size or spec.size
    height, width = (
        request.input_size or (given if isinstance(given, tuple) else None) or size or (224, 224)
    )
    if request.preprocessing is None:
        spec = for_size(spec, (height, width), where)
    dtype = next((weight.dtype for weight in module.parameters()), torch.float32)
    example = torch.zeros(1, 3, height, width, dtype=dtype)
    return convert(module, example, preprocessing=spec, source=source)


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


def no_such_model(where: str, name: str, known: Iterable[str]) -> OptionError:
    """The error for a name that the source does not know, with those that are like it."""
    names = list(known)
    if len(names) <= 5:
        return OptionError(
            "no such model", where=where, expected=f"one of {', '.join(names)}", found=repr(name)
        )
    alike = difflib.get_close_matches(name, names, n=5, cutoff=0.4) or sorted(names)[:5]
    return OptionError(
        "no such model",
        where=where,
        expected=f"one of its {len(names)} models, such as {', '.join(alike)}",
        found=repr(name),
    )


def imported(package: str, fix: str) -> ModuleType:
    """Import a framework's package.

    Args:
        fix: what to install, as a sentence.

    Raises:
        OptionError: if that fails, for whatever reason.
    """
    try:
        return importlib.import_module(package)
    except Exception as error:  # a missing package, or a compiled one that does not fit torch
        reason = str(error).strip().partition("\n")[0] or "no message"
        raise OptionError(
            f"this needs the package {package}, which cannot be imported",
            found=f"{type(error).__name__}: {reason}",
            fix=fix,
        ) from error


def no_weights(where: str, error: object, fix: str) -> ModelError:
    """The error for weights that are not to be had."""
    reason = " ".join(str(error).split())
    return ModelError(
        "the weights cannot be downloaded",
        where=where,
        found=reason if len(reason) <= 200 else reason[:200] + " ...",
        fix=fix,
    )


def reachable(url: str) -> bool:
    """Whether a server answers at all; asked once, where a client would try again for a minute."""
    try:
        urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=_SECONDS).close()
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False
    return True


@contextmanager
def quiet() -> Iterator[None]:
    """Without the chatter of frameworks: warnings and log messages of others."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
