"""A frozen TensorFlow graph to ONNX: its layers are tensors under their ops' names."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from nrp_converters.converted_model import ConvertedModel, write_metadata
from nrp_converters.graph_edits import expose, in_steps, layout_of, look_at_outputs
from nrp_converters.image_input import SourceInput
from nrp_converters.request import Request
from nrp_converters.tensorflow.graph import graph_to_onnx, told
from nrp_converters.tensorflow.packages import tf
from nrp_converters.tensorflow.pixel_scaling import Head, measured, preprocessing_with_head
from nrp_onnx.backbone.layers import Layer
from nrp_onnx.backbone.preprocessing import Preprocessing
from nrp_onnx.errors import ModelError

#: Ops that only move, copy or describe numbers, as `nrp_onnx.backbone.find_layers.MOVING_OPS` of ONNX.
MOVING_OPS = frozenset(
    [
        "BatchToSpaceND",
        "BroadcastTo",
        "Cast",
        "CheckNumerics",
        "Const",
        "ExpandDims",
        "Gather",
        "GatherNd",
        "GatherV2",
        "Identity",
        "IdentityN",
        "MirrorPad",
        "Pad",
        "PadV2",
        "Placeholder",
        "PreventGradient",
        "Reshape",
        "Shape",
        "Slice",
        "Snapshot",
        "SpaceToBatchND",
        "Split",
        "SplitV",
        "Squeeze",
        "StopGradient",
        "StridedSlice",
        "Tile",
        "Transpose",
        "Unpack",
    ]
)
_CALL = re.compile(r"^((Stateful)?PartitionedCall(_\d+)?/)+")
#: Ops that reach files or run Python: no model of images needs them, and a file may be anybody's.
_REACHING_OUT = frozenset(
    ["EagerPyFunc", "MatchingFiles", "PyFunc", "PyFuncStateless", "ReadFile", "Restore",
     "RestoreV2", "Save", "SaveV2", "WriteFile", "WholeFileReaderV2"]
)  # fmt: skip


def convert_graph(
    graph: Any,
    given: SourceInput,
    spec: Preprocessing,
    source: Mapping[str, Any],
    where: str,
) -> ConvertedModel:
    """Convert a function whose weights are constants.

    Args:
        graph: from `nrp_converters.tensorflow.graph.frozen`, with the images as its first input.
        given: that input.
        spec: the preprocessing, with size, layout and dtype filled in.
        source: where it comes from, for the metadata.
        where: the model, for errors.

    Raises:
        ModelError: if it does not run, has no layers, reaches files, or has operators that ONNX
            lacks.
    """
    _refuse_reaching_out(graph, where)
    own, candidates = list(graph.outputs), _candidates(graph)
    tensors = [*own, *candidates]
    pruned = graph.prune(graph.inputs[:1], tensors)

    def run(images: np.ndarray) -> list[np.ndarray]:
        with tf.device("/cpu:0"):
            return [tensor.numpy() for tensor in pruned(tf.constant(images))]

    try:
        seen = look_at_outputs(run, given)
    except Exception as error:  # TensorFlow's own, by what the ops raise
        raise ModelError(
            "TensorFlow cannot run the model on images",
            where=where,
            expected=f"shape {given.shape}",
            found=told(error),
            fix="Check --input-size.",
        ) from error
    layers: dict[int, Layer] = {}
    for place, (tensor, layer) in enumerate(zip(tensors, _names(tensors), strict=True)):
        shape = seen[place].shape
        if place >= len(own) and shape is not None and 1 <= len(shape) <= 3:
            layout = layout_of(shape, _axes(tensor.op, given))
            layers[place] = Layer(layer, "", shape, layout, tensor.op.type, len(layers))
    if not layers:
        raise ModelError(
            "no layer was found",
            where=where,
            expected="floating-point activations with the batch axis first",
            found=f"{len(candidates)} tensors, none of which is one",
        )
    kept = [*range(len(own)), *layers]
    model, values = graph_to_onnx(graph, graph.inputs[0], [tensors[place] for place in kept], where)
    value_of = dict(zip(kept, values, strict=True))
    table = expose(
        model,
        given,
        own=[(value_of[place], seen[place]) for place in range(len(own))],
        layers=[(layer, value_of[place], seen[place]) for place, layer in layers.items()],
    )
    origin = {"framework": "tensorflow", "version": str(tf.__version__), **source}
    write_metadata(model, table, spec, origin)

    def run_source(images: np.ndarray) -> dict[str, np.ndarray]:
        found = in_steps(run, images, given)
        return {layer.name: found[place] for place, layer in layers.items()}

    return ConvertedModel(ir.to_proto(model), table, spec, run_source)


#: Ops that scale pixels, turn channels round, or leave them as they are.
_SCALING = frozenset(
    ["Add", "AddV2", "BiasAdd", "Div", "Mul", "Pack", "RealDiv", "ReverseV2", "StridedSlice", "Sub"]
)
_PASSING = frozenset(
    ["Cast", "CheckNumerics", "Identity", "PlaceholderWithDefault", "ResizeBicubic",
     "ResizeBilinear", "ResizeNearestNeighbor"]
)  # fmt: skip


def fitted_preprocessing(
    graph: Any, given: SourceInput, request: Request, where: str
) -> Preprocessing:
    """The user's preprocessing, else what the graph's head expects, else ``imagenet``.

    Raises:
        OptionError: if it does not give what the graph takes.
    """
    own = preprocessing_with_head(_head_of(graph, given), request.preprocessing, request.notes)
    return given.fitted(request.preprocessing_or(own), where)


def _head_of(graph: Any, given: SourceInput) -> Head | None:
    """The scaling of pixels that a graph begins with: the ops up to the first of another kind."""
    (image, result), names = [graph.inputs[0]] * 2, []
    reached = {image.ref()}
    for op in graph.graph.get_operations():
        read = [tensor for tensor in op.inputs if tensor.ref() in reached]
        if not read or op.type == "Shape":
            continue
        if op.type not in _SCALING | _PASSING:
            result = read[0]
            break
        reached.update(tensor.ref() for tensor in op.outputs)
        if op.type in _SCALING:
            names.append(f"{op.type} ({_CALL.sub('', op.name)})")
    if not names or given.layout != "NHWC" or given.dtype != "float32":
        return None
    function = graph.prune([image], [result])
    return measured(
        names, lambda pixels: function(tf.constant(pixels))[0], (given.height, given.width)
    )


def _refuse_reaching_out(graph: Any, where: str) -> None:
    found = sorted({op.type for op in graph.graph.get_operations()} & _REACHING_OUT)
    if found:
        raise ModelError(
            "the graph reads or writes files, or runs Python, which is not done",
            where=where,
            expected="a graph that computes on images alone",
            found=", ".join(found),
        )


def _candidates(graph: Any) -> list[Any]:
    """Floating-point tensors of rank 2 to 4 that depend on the image, in order of computation."""
    reached = {graph.inputs[0].ref()}
    found = []
    for op in graph.graph.get_operations():
        if op.type == "Shape" or not any(tensor.ref() in reached for tensor in op.inputs):
            continue
        reached.update(tensor.ref() for tensor in op.outputs)
        if op.type in MOVING_OPS or not op.outputs:
            continue
        tensor = op.outputs[0]  # the others are by-products, such as a batch norm's statistics
        if tensor.dtype.is_floating and tensor.shape.rank in (None, 2, 3, 4):
            found.append(tensor)
    return found


def _names(tensors: Sequence[Any]) -> list[str]:
    """Names of their ops, without the calls of functions around them where that is unambiguous."""
    short = [_CALL.sub("", tensor.op.name) for tensor in tensors]
    return [
        tensor.op.name if short.count(name) > 1 and tensor.op.name != name else name
        for tensor, name in zip(tensors, short, strict=True)
    ]


def _axes(op: Any, given: SourceInput) -> str:
    layout: str = given.layout
    try:
        axes: str = op.get_attr("data_format").decode()
    except ValueError:
        return layout
    return axes if axes in ("NHWC", "NCHW") else layout
