"""SPEC ``torch:package.module:factory`` or ``torch:file.py:factory``: a user's own ``nn.Module``."""

import torch
from torch import nn

from nrp_onnx.converters.converted_model import ConvertedModel
from nrp_onnx.converters.factory import make_model
from nrp_onnx.converters.request import Request
from nrp_onnx.converters.torch import convert
from nrp_onnx.errors import ModelError, OptionError


def from_spec(name: str, request: Request) -> ConvertedModel:
    """Convert the module that a function returns, with the weights that it comes with.

    Raises:
        OptionError, ModelError: if there is no such function, it returns no module, or that cannot
            be converted.
    """
    if request.weights is not None:
        raise OptionError(
            "a factory brings its own weights",
            where=f"torch:{name}",
            expected="no --weights",
            found=repr(request.weights),
            fix="Load them in the factory.",
        )
    torch.manual_seed(request.seed)
    module = make_model(name, "torch")
    if not isinstance(module, nn.Module):
        raise ModelError(
            "the factory returns no PyTorch model",
            where=f"torch:{name}",
            expected="an nn.Module",
            found=type(module).__name__,
        )
    spec = request.preprocessing_or(None)
    height, width = request.size_or_default()
    dtype = next((weight.dtype for weight in module.parameters()), torch.float32)
    example = torch.zeros(1, 3, height, width, dtype=dtype)
    source = {"spec": f"torch:{name}", "seed": request.seed}
    return convert(module, example, preprocessing=spec, source=source)
