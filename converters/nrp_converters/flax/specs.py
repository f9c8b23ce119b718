"""SPEC ``jax:package.module:factory`` or ``jax:file.py:factory``, looked at before Flax is imported."""

import numpy as np

from nrp_converters.converted_model import ConvertedModel
from nrp_converters.factory import make_model
from nrp_converters.flax.packages import check_installed
from nrp_converters.request import Request
from nrp_onnx.activations.session import CLASH, wheels_clash
from nrp_onnx.errors import ModelError, OptionError


def from_spec(name: str, request: Request) -> ConvertedModel:
    """Convert the flax model that a function returns, with the weights that it comes with.

    Raises:
        OptionError, ModelError: if there is no such function, it returns no flax model, that cannot
            be converted, or jax, flax or jax2onnx is missing.
    """
    where = f"jax:{name}"
    check_installed(where)
    if request.weights is not None or request.seed != 0:
        raise OptionError(
            "the weights are those that the factory gives",
            where=where,
            expected="neither --weights nor --seed",
            fix="Set the weights, or the key that they are drawn from, in the factory.",
        )
    if wheels_clash():
        request.notes.say(CLASH)
    model = make_model(name, "jax")
    if not any(kind.__module__.partition(".")[0] == "flax" for kind in type(model).__mro__):
        raise ModelError(
            "the factory returns no flax model",
            where=where,
            expected="an nnx.Module, or a linen module as module.bind(variables)",
            found=type(model).__name__,
        )
    spec = request.preprocessing_or(None)
    height, width = request.size_or_default()
    example = np.zeros((1, height, width, 3), np.float32)
    from nrp_converters.flax.modules import convert  # imports flax and jax

    return convert(model, example, preprocessing=spec, source={"spec": where})
