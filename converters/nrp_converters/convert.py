"""Converts a model object of any framework: ``nrp_onnx.convert``."""

import importlib
from collections.abc import Mapping
from typing import Any

from nrp_converters.converted_model import ConvertedModel
from nrp_converters.parity import with_parity
from nrp_onnx.backbone.preprocessing import PRESETS, Preprocessing, read_preprocessing
from nrp_onnx.errors import ModelError
from nrp_onnx.notes import Notes

#: For the package that a model's class comes from, the converter module; none is imported before
#: the user's model has shown that its framework is there. One that knows models which preprocess
#: their images themselves has ``own_preprocessing(model, asked, notes)``.
_CONVERTERS = {
    "torch": "nrp_converters.torch.modules",
    "keras": "nrp_converters.tensorflow.keras_models",
    "flax": "nrp_converters.flax.modules",
}


def convert(
    model: Any,
    example_input: Any = None,
    *,
    preprocessing: Preprocessing | str | None = None,
    source: Mapping[str, Any] | None = None,
    allow_mismatch: bool = False,
    notes: Notes | None = None,
) -> ConvertedModel:
    """Turn a model into an ONNX backbone with its layers exposed, and prove that it is right.

    Args:
        model: a ``torch.nn.Module``, a ``keras.Model`` or a flax module.
        example_input: a batch of images as the model takes them; its values do not matter. A Keras
            model knows its input and needs none.
        preprocessing: from uint8 RGB images to the model's input: a `Preprocessing`, the name of a
            preset or a JSON file; None takes what a Keras model's head expects, else ``imagenet``,
            which is said.
        source: more about the model's origin, as JSON can hold it.
        allow_mismatch: keep a model that differs from its source by more than the tolerance.

    Returns:
        The model, with ``.save(path)``.

    Raises:
        ModelError: if it is no model of these frameworks, cannot be converted, or a layer comes out
            wrong.
        OptionError: if the preprocessing does not fit the model.
    """
    notes = notes or Notes()
    if isinstance(preprocessing, str):
        preprocessing = read_preprocessing(preprocessing)
    converter = importlib.import_module(_framework(model))
    if hasattr(converter, "own_preprocessing"):
        preprocessing = converter.own_preprocessing(model, preprocessing, notes)
    if preprocessing is None:
        preprocessing = PRESETS["imagenet"]
        notes.say("no preprocessing is named: taking imagenet (RGB 0-1, ImageNet mean and std)")
    converted: ConvertedModel = converter.convert(
        model, example_input, preprocessing=preprocessing, source=source
    )
    with_parity(converted, allow_mismatch=allow_mismatch)
    return converted


def is_model(value: object) -> bool:
    """Whether a value is a model of a framework that can be converted."""
    return any(root in _CONVERTERS for root in _packages(value))


def _framework(model: Any) -> str:
    for root in _packages(model):
        if root in _CONVERTERS:
            return _CONVERTERS[root]
    raise ModelError(
        "this is no model of a known framework",
        expected="a torch.nn.Module, a keras.Model or a flax module",
        found=f"{type(model).__module__}.{type(model).__qualname__}",
        fix="For an ONNX file use: nrp-onnx convert onnx:FILE",
    )


def _packages(value: object) -> list[str]:
    return [kind.__module__.partition(".")[0] for kind in type(value).__mro__]
