"""The feature graph: uint8 images in, reduced activations of the chosen layers out, nothing more."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
from onnx_ir.passes import common as passes
from onnx_ir.tape import Tape

from nrp_onnx.backbone.layers import Grid, Layer, grid_of, guess_layout
from nrp_onnx.backbone.model import Backbone
from nrp_onnx.backbone.preprocessing import Preprocessing
from nrp_onnx.backbone.preprocessing_nodes import append_preprocessing
from nrp_onnx.backbone.reduction_nodes import SEED, append_reduction
from nrp_onnx.backbone.reductions import Reduction
from nrp_onnx.backbone.weight_files import session_options, without_external_weights
from nrp_onnx.errors import ModelError
from nrp_onnx.files import sha256_of_json

#: Name of the input of feature graphs and predictors: uint8 RGB of shape (batch, H, W, 3).
IMAGES = "images"
MAXIMUM_IR = 10


@dataclass(frozen=True)
class Feature:
    """A layer as it leaves the feature graph, flattened to (batch, n_features) float32."""

    layer: Layer
    reduction: Reduction

    @property
    def shape(self) -> tuple[int, ...]:
        return self.reduction.shape(self.layer)

    @property
    def grid(self) -> Grid | None:
        """Which of its features lie where in the image; None where the reduction keeps no places."""
        return grid_of(self.shape, self.reduction.layout(self.layer))

    @property
    def n_features(self) -> int:
        return int(np.prod(self.shape))

    def fingerprint(self, computation: str, preprocessing: Preprocessing) -> str:
        """SHA-256 over all that can change these activations, the stimuli aside.

        Args:
            computation: the layer's, of `nrp_onnx.backbone.fingerprints.computation_digests`.
        """
        return sha256_of_json(
            [
                computation,
                preprocessing.to_json(),
                self.layer.shape,
                self.layer.layout,
                str(self.reduction),
                SEED if self.reduction.kind == "sketch" else None,
                ort.__version__,
            ]
        )


def with_known_shapes(backbone: Backbone, layers: Sequence[Layer]) -> list[Layer]:
    """The layers with their shapes; those that the graph does not tell are found by a run.

    Raises:
        ModelError: if the model does not run, or a layer is no activation of rank 2 to 4.
    """
    unknown = [layer for layer in layers if layer.shape is None]
    if not unknown:
        return list(layers)
    model = ir.from_proto(backbone.proto)
    values = _values(model)
    model.graph.outputs[:] = [values[layer.tensor] for layer in unknown]
    passes.RemoveUnusedNodesPass()(model)
    model.ir_version = min(model.ir_version, MAXIMUM_IR)
    given = backbone.input
    height, width = given.height or 224, given.width or 224
    shape = given.shape(1, height, width)
    try:
        session = ort.InferenceSession(
            ir.to_proto(model).SerializeToString(),
            session_options(backbone.path.parent),
            providers=["CPUExecutionProvider"],
        )
        outputs = session.run(None, {given.name: np.zeros(shape, given.dtype)})
    except Exception as error:  # ONNX Runtime has no public exception family
        raise ModelError(
            "the model does not run", where=backbone.path, found=str(error).splitlines()[0]
        ) from None
    found = {}
    for layer, output in zip(unknown, outputs, strict=True):
        if not 2 <= np.ndim(output) <= 4:
            raise ModelError(
                f"the layer {layer.name} is no activation of images",
                where=backbone.path,
                expected="2 to 4 axes",
                found=np.shape(output),
            )
        one = tuple(np.shape(output)[1:])
        found[layer.name] = replace(layer, shape=one, layout=layer.layout or guess_layout(one))
    return [found.get(layer.name, layer) for layer in layers]


def build_feature_graph(
    backbone: Backbone, preprocessing: Preprocessing, features: Sequence[Feature]
) -> ir.Model:
    """Preprocessing, backbone and reductions as one graph, cut after the last asked layer.

    The input is `IMAGES`; the outputs have the layers' names and the shape (batch, n_features).
    External data are still referred to: they lie in the folder of the backbone.
    """
    # A copy: renaming the initialisers below writes through to the protobuf they came from.
    proto = onnx.ModelProto()
    proto.CopyFrom(backbone.proto)
    model = ir.from_proto(proto)
    graph = model.graph
    tensors = _values(model)
    asked = [tensors[feature.layer.tensor] for feature in features]
    everything = list(
        dict.fromkeys([*graph.inputs, *graph.initializers.values(), *tensors.values()])
    )
    named = [value for value in everything if value.name]
    # Out of the way of the names that users see: images, and the layers' own.
    ir.convenience.rename_values(named, [f"backbone/{value.name}" for value in named])
    passes.RemoveInitializersFromInputsPass()(model)

    batch: int | str = backbone.input.batch or "batch"
    images = ir.Value(
        name=IMAGES,
        shape=ir.Shape([batch, "height", "width", 3]),
        type=ir.TensorType(ir.DataType.UINT8),
    )
    head = Tape()
    replacement = append_preprocessing(head, images, preprocessing)
    (old_input,) = graph.inputs
    ir.convenience.replace_all_uses_with(old_input, replacement)
    graph.inputs[:] = [images]
    first = next(iter(graph))
    graph.insert_before(first, list(head.nodes))

    tail = Tape()
    outputs = []
    for feature, value in zip(features, asked, strict=True):
        output = append_reduction(tail, value, feature.layer, feature.reduction)
        output.name = feature.layer.name
        output.shape = ir.Shape([batch, feature.n_features])
        output.type = ir.TensorType(ir.DataType.FLOAT)
        outputs.append(output)
    graph.extend(list(tail.nodes))
    graph.outputs[:] = outputs
    graph.name = "nrp_onnx_feature_graph"
    # What ONNX Runtime reads may lag behind what onnx writes by default; the opset decides the rest.
    model.ir_version = min(max(model.ir_version, 8), MAXIMUM_IR)
    # Layer tables of the backbone no longer fit this graph.
    for key in [key for key in model.metadata_props if key.startswith("nrp_onnx.")]:
        del model.metadata_props[key]
    passes.RemoveUnusedNodesPass()(model)
    passes.NameFixPass()(model)
    return model


def to_checked_proto(model: ir.Model, what: str) -> onnx.ModelProto:
    """The model as protobuf, after ``onnx.checker`` has passed it."""
    proto = ir.to_proto(model)
    try:
        onnx.checker.check_model(without_external_weights(proto))
    except onnx.checker.ValidationError as error:
        raise ModelError(f"the {what} is no valid ONNX", found=str(error).splitlines()[0]) from None
    return proto


def _values(model: ir.Model) -> dict[Any, ir.Value]:
    return {value.name: value for node in model.graph for value in node.outputs}
