"""What all sources of named PyTorch models do in the end: convert the module with its preprocessing."""

import difflib
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn

from nrp_converters.converted_model import ConvertedModel
from nrp_converters.request import DEFAULT_SIZE, Request
from nrp_converters.source_preprocessing import for_size
from nrp_converters.torch.modules import convert
from nrp_onnx.backbone.preprocessing import Preprocessing
from nrp_onnx.errors import ModelError, OptionError


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
    spec = request.preprocessing_or(own)
    given = spec.crop_size or spec.size
    height, width = (
        request.input_size or (given if isinstance(given, tuple) else None) or size or DEFAULT_SIZE
    )
    if request.preprocessing is None:
        spec = for_size(spec, (height, width), where)
    dtype = next((weight.dtype for weight in module.parameters()), torch.float32)
    example = torch.zeros(1, 3, height, width, dtype=dtype)
    return convert(module, example, preprocessing=spec, source=source)


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


def no_weights(where: str, error: object, fix: str) -> ModelError:
    """The error for weights that are not to be had."""
    reason = " ".join(str(error).split())
    return ModelError(
        "the weights cannot be downloaded",
        where=where,
        found=reason if len(reason) <= 200 else reason[:200] + " ...",
        fix=fix,
    )
