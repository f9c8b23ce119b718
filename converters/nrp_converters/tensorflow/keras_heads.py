"""Finds what a Keras model does to pixels at its head.

A model may begin with Rescaling or Normalization layers, or with arithmetic such as ``x / 127.5 - 1``
of ``preprocess_input``.
"""

from typing import Any

import numpy as np

from nrp_converters.tensorflow.packages import keras
from nrp_converters.tensorflow.pixel_scaling import Head, measured, preprocessing_with_head
from nrp_onnx.backbone.preprocessing import Preprocessing
from nrp_onnx.notes import Notes

#: Operations that scale pixels, and those that leave them as they are when a model predicts.
_SCALING = frozenset(
    ["Add", "Divide", "GetItem", "Multiply", "Negative", "Normalization", "Rescaling", "Stack",
     "Subtract", "TrueDivide"]
)  # fmt: skip
_PASSING = frozenset(
    ["Cast", "CenterCrop", "Dropout", "GaussianNoise", "Identity", "InputLayer", "RandomBrightness",
     "RandomContrast", "RandomCrop", "RandomFlip", "RandomRotation", "RandomTranslation",
     "RandomZoom", "Resizing"]
)  # fmt: skip


def head_of(model: Any) -> Head | None:
    """The scaling of pixels that a model begins with; None where it does none that is understood.

    Args:
        model: a functional or sequential ``keras.Model`` of images with the channels last.
    """
    if not getattr(model, "inputs", None):
        return None
    names, steps = _steps(model)
    return None if not names else _measured(names, steps)


def own_preprocessing(
    model: Any, asked: Preprocessing | None, notes: Notes
) -> Preprocessing | None:
    """`preprocessing_with_head` of a Keras model."""
    return preprocessing_with_head(head_of(model), asked, notes)


def head_before(model: Any, part: Any) -> Head | None:
    """The scaling of pixels between a model's input and a model inside it; None where there is
    none, or more."""
    names: list[str] = []
    last = None
    for operation in _operations(model):
        if operation is part:
            return _measured(names, _until(model, last)) if names else None
        if not _is_all_head(operation):
            return None
        names += _names(operation)
        last = operation
    return None


def _operations(model: Any) -> list[Any]:
    """What a model calls, in the order of its graph."""
    return list(getattr(model, "operations", None) or model.layers)


def _names(operation: Any) -> list[str]:
    """The scaling operations in one that is all head."""
    if isinstance(operation, keras.Model):
        return [name for inner in _operations(operation) for name in _names(inner)]
    kind = type(operation).__name__
    return [f"{kind} ({operation.name})"] if kind in _SCALING else []


def _is_all_head(operation: Any) -> bool:
    if isinstance(operation, keras.Model):
        return all(map(_is_all_head, _operations(operation)))
    return type(operation).__name__ in _SCALING | _PASSING


def _steps(model: Any) -> tuple[list[str], list[Any]]:
    """The scaling operations that come first, and models that carry them out one after another."""
    names: list[str] = []
    last = None
    for operation in _operations(model):
        if _is_all_head(operation):
            names += _names(operation)
            last = operation
            continue
        if isinstance(operation, keras.Model):
            inner_names, inner = _steps(operation)
            return [*names, *inner_names], [*_until(model, last), *inner]
        break
    return names, _until(model, last)


def _until(model: Any, last: Any) -> list[Any]:
    """The model up to an operation; none where that does nothing."""
    if last is None or type(last).__name__ == "InputLayer":
        return []
    return [keras.Model(model.inputs, last.output)]


def _measured(names: list[str], steps: list[Any]) -> Head | None:
    """What models carry out one after another."""

    def run(image: np.ndarray) -> Any:
        result: Any = image
        for step in steps:
            result = step(result, training=False)
        return result

    height, width = (side or 8 for side in steps[0].inputs[0].shape[1:3])
    return measured(names, run, (height, width))
