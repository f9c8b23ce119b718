"""Gradients of a backbone: those of the PyTorch network that it was made from, if that can be had."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import torch
from torch import nn

from nrp_onnx.backbone.model import Backbone
from nrp_onnx.backbone.preprocessing import Preprocessing
from nrp_onnx.converters.converted_model import ClassGradient
from nrp_onnx.converters.request import Request
from nrp_onnx.converters.specs import convert_spec
from nrp_onnx.errors import ModelError

#: Sources that name their weights by what ``convert --weights`` takes.
_NAMED_WEIGHTS = ("torchvision",)
#: Scores may differ by this part of their spread: two frameworks computed them.
_TOLERANCE = 1e-3


def gradient_of_backbone(
    backbone: Backbone, preprocessing: Preprocessing, module: nn.Module | None
) -> ClassGradient:
    """The gradient of the network that a backbone was made from.

    Args:
        module: that network; None makes it anew from what the file says of its source.

    Raises:
        NrpOnnxError: if there is none, or it cannot be made here.
    """
    if module is not None:
        from nrp_onnx.converters.torch import gradient_of

        device = next((weight.device for weight in module.parameters()), torch.device("cpu"))
        return partial(gradient_of, module, device)
    source = backbone.source or {}
    if source.get("framework") != "torch" or "spec" not in source:
        raise ModelError(
            "there are no gradients",
            where=backbone.path,
            expected="a model that was converted by the name of a PyTorch network",
            found=_origin(source),
        )
    given = preprocessing.crop_size or preprocessing.size
    size = given if isinstance(given, tuple) else None
    request = Request(_weights(source), preprocessing, size, int(source.get("seed", 0)))
    converted = convert_spec(str(source["spec"]), request)
    assert converted.class_gradient is not None
    return converted.class_gradient


def check_same_network(backbone: Backbone, gradient: ClassGradient, images: np.ndarray) -> None:
    """See that the network with gradients gives the backbone's scores.

    Args:
        images: a batch as the backbone takes it.

    Raises:
        ModelError: if it gives others, or there are none.
    """
    session = ort.InferenceSession(backbone.path, providers=["CPUExecutionProvider"])
    name, output = backbone.input.name, session.get_outputs()[0].name
    step = backbone.input.batch or len(images)
    batches = [images[start : start + step] for start in range(0, len(images), step)]
    expected = np.concatenate([session.run([output], {name: batch})[0] for batch in batches])
    found = gradient(images)[0]
    apart = np.inf
    if found.shape == expected.shape:
        spread = float(expected.astype(np.float64).std()) or 1.0
        apart = float(np.abs(found.astype(np.float64) - expected).max()) / spread
    if not apart <= _TOLERANCE:
        raise ModelError(
            "the PyTorch network is another than that of the file",
            where=backbone.path,
            expected=f"scores up to {_TOLERANCE:g} of their spread apart",
            found=f"shapes {found.shape} and {expected.shape}"
            if found.shape != expected.shape
            else f"{apart:.2g}",
        )


def _weights(source: dict[str, Any]) -> str | None:
    """What ``--weights`` was."""
    weights = source.get("weights")
    named = str(source["spec"]).partition(":")[0] in _NAMED_WEIGHTS
    return str(weights) if weights == "none" or named else None


def _origin(source: dict[str, Any]) -> str:
    if not source:
        return "a file that does not say where it comes from"
    origin = source.get("spec") or source.get("class") or source.get("framework")
    return f"one from {Path(str(origin)).name}"
