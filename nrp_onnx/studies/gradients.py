"""Gradients of a model through the PyTorch source that a file names, and FGSM images.

Goodfellow, Shlens & Szegedy 2015, "Explaining and harnessing adversarial examples", section 4:
x' = x + eps sign(grad_x J(x, y)). Here y is the class that the network takes the image for, so that no
labels are needed; x are the pixels that are left when the image is resized and cropped for the network,
in grey levels, and x' is rounded and clipped to 0 to 255, so that it is an image again.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import torch
from onnx_ir.tape import Tape
from torch import nn

from nrp_converters.converted_model import ClassGradient
from nrp_converters.request import Request
from nrp_converters.specs import convert_spec
from nrp_onnx.activations.images import of_one_size
from nrp_onnx.backbone.feature_graph import IMAGES, to_checked_proto
from nrp_onnx.backbone.model import Backbone
from nrp_onnx.backbone.preprocessing import Preprocessing
from nrp_onnx.backbone.preprocessing_nodes import append_preprocessing
from nrp_onnx.errors import ModelError
from nrp_onnx.studies.perturbed_distances import Images

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
        from nrp_converters.torch.evaluation import gradient_of

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


_OPSET, _IR_VERSION = 18, 10


class Fgsm:
    """FGSM as a `nrp_onnx.studies.perturbed_distances.Perturbation`.

    Args:
        levels: eps, in grey levels of 255.
        preprocessing: of the network, with size, layout and dtype filled in.
        gradient: of the network.

    Attributes:
        preprocessing: what is left to do with the prepared images: no resizing, no cropping.
    """

    def __init__(
        self, levels: Sequence[float], preprocessing: Preprocessing, gradient: ClassGradient
    ) -> None:
        size = preprocessing.crop_size or preprocessing.size
        self.levels = levels
        self.preprocessing = replace(
            preprocessing, visual_degrees_ratio=1.0, size=size, crop_size=None
        )
        in_grey_levels = replace(
            preprocessing,
            rescale_factor=1.0,
            image_mean=(0.0, 0.0, 0.0),
            image_std=(1.0, 1.0, 1.0),
            channel_order="RGB",
            layout="NHWC",
            dtype="float32",
        )
        self._gradient = gradient
        self._pixels, self._input = _session(in_grey_levels), _session(self.preprocessing)

    def prepared(self, images: Images) -> Images:
        """Resized and cropped for the network: uint8 (height, width, 3)."""
        found: dict[int, np.ndarray] = {}
        for places, batch in of_one_size(images):
            (pixels,) = self._pixels.run(None, {IMAGES: batch})
            rounded = np.clip(np.rint(pixels), 0, 255).astype(np.uint8)
            found |= dict(zip(places, rounded, strict=True))
        return [found[place] for place in range(len(images))]

    def changed(self, images: Images, places: Sequence[int]) -> Iterator[Images]:
        """Moved by each level up or down, in every number whose gradient is not 0."""
        batch = np.stack(images)
        signs = np.sign(self._gradient(self.network_input(batch))[1]).astype(np.float32)
        # Rescaling and division by deviations are positive: signs are those of the pixels.
        if self.preprocessing.layout == "NCHW":
            signs = signs.transpose(0, 2, 3, 1)
        if self.preprocessing.channel_order == "BGR":
            signs = signs[..., ::-1]
        for level in self.levels:
            yield list(np.clip(np.rint(batch + level * signs), 0, 255).astype(np.uint8))

    def network_input(self, prepared: np.ndarray) -> np.ndarray:
        """What the network gets of prepared images, uint8 (n, height, width, 3)."""
        found: np.ndarray = self._input.run(None, {IMAGES: prepared})[0]
        return found


def _session(spec: Preprocessing) -> ort.InferenceSession:
    images = ir.Value(
        name=IMAGES,
        shape=ir.Shape(["batch", "height", "width", 3]),
        type=ir.TensorType(ir.DataType.UINT8),
    )
    tape = Tape()
    output = append_preprocessing(tape, images, spec)
    output.name = "output"
    size = spec.crop_size or spec.size
    assert isinstance(size, tuple)
    output.shape = ir.Shape(["batch", 3, *size] if spec.layout == "NCHW" else ["batch", *size, 3])
    output.type = ir.TensorType(
        ir.DataType.FLOAT16 if spec.dtype == "float16" else ir.DataType.FLOAT
    )
    graph = ir.Graph(
        [images], [output], nodes=tape.nodes, opset_imports={"": _OPSET}, name="preprocessing"
    )
    proto = to_checked_proto(ir.Model(graph, ir_version=_IR_VERSION), "preprocessing")
    return ort.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
