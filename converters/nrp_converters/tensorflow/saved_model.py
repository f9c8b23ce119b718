"""SPEC ``saved_model:DIR``: a TensorFlow SavedModel; its layers are tensors under their ops' names."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from nrp_converters.converted_model import ConvertedModel, write_metadata
from nrp_converters.graph_edits import INPUT, expose, in_steps, layout_of, look_at_outputs
from nrp_converters.image_input import SourceInput, image_input
from nrp_converters.request import Request
from nrp_converters.specs import quiet
from nrp_converters.tensorflow.graph import frozen, graph_to_onnx, told
from nrp_converters.tensorflow.packages import tf
from nrp_onnx.backbone.layers import Layer
from nrp_onnx.errors import ModelError, OptionError

_SIGNATURE = "serving_default"
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


def from_spec(name: str, request: Request) -> ConvertedModel:
    """Convert the signature ``serving_default`` of a SavedModel.

    Raises:
        OptionError, ModelError: if there is no such folder or signature, it takes anything but one
            batch of images, or it cannot be converted.
    """
    where = f"saved_model:{name}"
    if request.weights is not None:
        raise OptionError(
            "a SavedModel has its own weights",
            where=where,
            found=f"--weights {request.weights}",
            fix="Leave --weights out.",
        )
    loaded, signature = _load(Path(name), where)
    given, key = _input_of(signature, request.input_size, where)
    spec = given.fitted(request.preprocessing_or(None), where)
    graph = _freeze(signature, key, given, where)
    own, candidates = list(graph.outputs), _candidates(graph)
    tensors = [*own, *candidates]
    pruned = graph.prune(graph.inputs[:1], tensors)

    def run(images: np.ndarray) -> list[np.ndarray]:
        with tf.device("/cpu:0"):
            return [tensor.numpy() for tensor in pruned(tf.constant(images))]

    seen = look_at_outputs(run, given)
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
    source: dict[str, Any] = {
        "framework": "tensorflow",
        "version": str(tf.__version__),
        "spec": f"saved_model:{Path(name).resolve().name}",
        "signature": _SIGNATURE,
    }
    n_parameters = sum(
        int(np.prod(variable.shape))
        for variable in signature.variables
        if variable.dtype.is_floating
    )
    if n_parameters:  # else the weights are constants, which are counted in the ONNX file
        source["n_parameters"] = n_parameters
    write_metadata(model, table, spec, source)

    def run_source(images: np.ndarray) -> dict[str, np.ndarray]:
        found = in_steps(run, images, given)
        return {layer.name: found[place] for place, layer in layers.items()}

    del loaded  # it had to stay until its variables were read
    return ConvertedModel(ir.to_proto(model), table, spec, run_source)


def _load(path: Path, where: str) -> tuple[Any, Any]:
    if not (path / "saved_model.pb").is_file() and not (path / "saved_model.pbtxt").is_file():
        raise OptionError(
            "no SavedModel is there",
            where=where,
            expected="a folder with saved_model.pb",
            found="a folder without" if path.is_dir() else "a file" if path.exists() else "nothing",
        )
    try:
        with quiet(), tf.device("/cpu:0"):
            loaded = tf.saved_model.load(str(path))
    except Exception as error:  # TensorFlow raises its own errors, OSError, ValueError, KeyError
        raise ModelError("TensorFlow cannot load it", where=where, found=told(error)) from error
    signatures = dict(getattr(loaded, "signatures", {}))
    if _SIGNATURE not in signatures:
        raise ModelError(
            "the SavedModel has no serving signature",
            where=where,
            expected=f"the signature {_SIGNATURE}",
            found=", ".join(signatures) or "none",
            fix="Save it with tf.saved_model.save(model, DIR, signatures=function), or from Keras "
            "with model.export(DIR).",
        )
    return loaded, signatures[_SIGNATURE]


def _input_of(signature: Any, size: tuple[int, int] | None, where: str) -> tuple[SourceInput, str]:
    keywords = signature.structured_input_signature[1]
    described = [
        (
            key,
            None if tensor.shape.rank is None else tensor.shape.as_list(),
            tensor.dtype.name,
        )
        for key, tensor in keywords.items()
    ]
    return image_input(described, size, where), next(iter(keywords))


def _freeze(signature: Any, key: str, given: SourceInput, where: str) -> Any:
    """The signature on images of that size, with its variables as constants."""

    def on_images(images: Any) -> list[Any]:
        return list(tf.nest.flatten(signature(**{key: images})))

    tensor = tf.TensorSpec(given.shape, given.dtype, name=INPUT)
    try:
        with quiet(), tf.device("/cpu:0"):
            function = tf.function(on_images, input_signature=[tensor], autograph=False)
            return frozen(function.get_concrete_function())
    except Exception as error:  # TensorFlow raises its own errors, ValueError and TypeError
        raise ModelError(
            "TensorFlow cannot trace the model", where=where, found=told(error)
        ) from error


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
