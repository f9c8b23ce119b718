"""SPEC ``tflite:FILE``: a TFLite model, float or quantised, as a network of real numbers.

Quantised weights become the real numbers that they stand for, and so do activations, whose rounding
and clipping to 256 steps goes. TFLite's own float kernels run the same numbers for comparison.
"""

import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from nrp_converters.converted_model import ConvertedModel, write_metadata
from nrp_converters.graph_edits import (
    Seen,
    expose,
    in_steps,
    layout_of,
    look_at_outputs,
    open_batch,
)
from nrp_converters.image_input import SourceInput, image_input
from nrp_converters.request import Request
from nrp_converters.specs import quiet
from nrp_converters.tensorflow.graph import to_onnx, told
from nrp_converters.tensorflow.packages import tf, tf2onnx, tflite_schema, without_stderr
from nrp_converters.tensorflow.pixel_scaling import Head, measured, preprocessing_with_head
from nrp_converters.tensorflow.tflite_float import FloatModel, read_as_float
from nrp_onnx.backbone.layers import Layer
from nrp_onnx.backbone.preprocessing import Preprocessing
from nrp_onnx.errors import ModelError, OptionError
from nrp_onnx.files import sha256_of_file

_MOVING = frozenset(
    [
        "BROADCAST_TO",
        "CAST",
        "EXPAND_DIMS",
        "GATHER",
        "MIRROR_PAD",
        "PAD",
        "PADV2",
        "RESHAPE",
        "SHAPE",
        "SLICE",
        "SPLIT",
        "SPLIT_V",
        "SQUEEZE",
        "STRIDED_SLICE",
        "TILE",
        "TRANSPOSE",
        "UNPACK",
    ]
)
#: Operators that scale pixels or turn channels round.
_SCALING = frozenset(["ADD", "DIV", "MUL", "PACK", "REVERSE_V2", "STRIDED_SLICE", "SUB"])
_FLOAT_KERNELS = "TFLite's float kernels on the dequantised model"


def from_spec(name: str, request: Request) -> ConvertedModel:
    """Convert a TFLite file; its layers have the names of its tensors.

    Raises:
        OptionError, ModelError: if there is no such file, it takes anything but one batch of
            images, or it cannot be converted.
    """
    where, path = f"tflite:{name}", Path(name)
    if request.weights is not None:
        raise OptionError(
            "a TFLite file has its own weights",
            where=where,
            found=f"--weights {request.weights}",
            fix="Leave --weights out.",
        )
    model = _read(path, where)
    graph = model.graph
    inputs = [graph.tensors[place] for place in graph.inputs]
    described = [(t.name.decode(), list(map(int, t.shape)), _dtype(t)) for t in inputs]
    given = image_input(described, request.input_size, where)
    spec = given.fitted(_preprocessing(model, given, request, where), where)
    if model.quantised:
        request.notes.say(
            f"the model is quantised ({', '.join(model.quantised)}): its weights are taken as the "
            "real numbers that they stand for, its activations are not rounded"
        )
    own = [int(place) for place in graph.outputs]
    candidates = _candidates(model)
    tensors = [*own, *candidates]

    run = _interpreter(model.packed(list(dict.fromkeys(tensors))), tensors, where)
    seen = look_at_outputs(run, given)
    layers: dict[int, Layer] = {}
    for place, (layer, op) in enumerate(_names(model, candidates), len(own)):
        shape = seen[place].shape
        if shape is not None and 1 <= len(shape) <= 3:
            layout = layout_of(shape, given.layout)
            layers[place] = Layer(layer, "", shape, layout, op, len(layers))
    if not layers:
        raise ModelError("no layer was found", where=where, expected="floating-point activations")

    def export(given: SourceInput) -> tuple[ir.Model, list[Layer]]:
        kept = [*range(len(own)), *layers]
        asked = [tensors[place] for place in kept]
        return _export(
            model, given, asked, [seen[place] for place in kept], list(layers.values()), where
        )

    def run_source(images: np.ndarray) -> dict[str, np.ndarray]:
        found = in_steps(run, images, given)
        return {layer.name: found[place] for place, layer in layers.items()}

    exported, table = open_batch(export, given)
    source: dict[str, Any] = {
        "framework": "tflite",
        "version": str(tf.__version__),
        "spec": f"tflite:{path.name}",
        "sha256": sha256_of_file(path),
        "n_parameters": model.n_parameters,
    }
    if model.quantised:
        source |= {"quantised": model.quantised, "dequantised": True}
    write_metadata(exported, table, spec, source)
    reference = _FLOAT_KERNELS if model.quantised else "the source"
    return ConvertedModel(ir.to_proto(exported), table, spec, run_source, reference=reference)


def _read(path: Path, where: str) -> FloatModel:
    if not path.is_file():
        raise OptionError(
            "no such model file",
            where=where,
            expected="a .tflite file",
            found="a folder" if path.is_dir() else "nothing",
        )
    content = path.read_bytes()
    if content[4:8] != b"TFL3":
        raise ModelError(
            "this is no TFLite file",
            where=where,
            expected="the mark TFL3 at byte 4",
            found=f"{len(content)} bytes without it",
        )
    try:
        return read_as_float(content)
    except Exception as error:  # flatbuffers raises struct.error, IndexError, TypeError, ...
        raise ModelError(
            "the file is damaged", where=where, found=told(error), fix="Get it again."
        ) from error


def _dtype(tensor: Any) -> str:
    types: dict[str, Any] = vars(tflite_schema.TensorType)
    return next(name.lower() for name, number in types.items() if number == tensor.type)


def _preprocessing(
    model: FloatModel, given: SourceInput, request: Request, where: str
) -> Preprocessing:
    """The user's; else from the input's quantisation: real = scale * (q - zero point); else what the
    model's head expects."""
    if request.preprocessing is None and model.scale is not None and model.zero_point is not None:
        mean = model.scale * model.zero_point
        return Preprocessing(rescale_factor=model.scale, image_mean=(mean, mean, mean))
    head = _head_of(model, given, where)
    own = preprocessing_with_head(head, request.preprocessing, request.notes)
    spec: Preprocessing = request.preprocessing_or(own)
    return spec


def _head_of(model: FloatModel, given: SourceInput, where: str) -> Head | None:
    """The scaling of pixels by the operators up to the first of another kind."""
    result = int(model.graph.inputs[0])
    reached, names = {result}, []
    for op in model.graph.operators:
        kind = model.operator(op)
        read = [int(place) for place in op.inputs if int(place) in reached]
        if not read or kind == "SHAPE":
            continue
        if kind not in _SCALING:
            result = read[0]
            break
        reached.update(int(place) for place in op.outputs)
        names.append(kind)
    if not names or given.layout != "NHWC":
        return None
    run = _interpreter(model.packed([result]), [result], where)
    return measured(names, lambda image: run(image)[0], (given.height, given.width))


def _candidates(model: FloatModel) -> list[int]:
    """Tensors that operators make from the image, in order of computation."""
    graph = model.graph
    reached = {int(place) for place in graph.inputs}
    found = []
    for op in graph.operators:
        name = model.operator(op)
        if name == "SHAPE" or not any(int(place) in reached for place in op.inputs):
            continue
        reached.update(int(place) for place in op.outputs)
        first = int(op.outputs[0])
        tensor = graph.tensors[first]
        if name not in _MOVING and _dtype(tensor) == "float32" and tensor.shape is not None:
            found.append(first)
    return found


def _names(model: FloatModel, places: list[int]) -> list[tuple[str, str]]:
    """Name and operator of each tensor; a name that comes again gets #2, ..."""
    made_by = {int(op.outputs[0]): model.operator(op) for op in model.graph.operators}
    so_far = Counter[str]()
    named = []
    for place in places:
        name = model.graph.tensors[place].name.decode()
        so_far[name] += 1
        named.append((name if so_far[name] == 1 else f"{name}#{so_far[name]}", made_by[place]))
    return named


def _interpreter(content: bytes, tensors: list[int], where: str) -> Any:
    """A function from one image to these tensors, by TFLite."""
    try:
        with quiet(), without_stderr():
            interpreter = tf.lite.Interpreter(model_content=content, num_threads=2)
            interpreter.allocate_tensors()
    except Exception as error:  # RuntimeError, ValueError
        raise ModelError("TFLite cannot run the model", where=where, found=told(error)) from error
    (image,) = interpreter.get_input_details()

    def run(images: np.ndarray) -> list[np.ndarray]:
        interpreter.set_tensor(image["index"], images)
        interpreter.invoke()
        return [interpreter.get_tensor(place) for place in tensors]

    return run


def _export(
    model: FloatModel,
    given: SourceInput,
    tensors: list[int],
    seen: list[Seen],
    layers: list[Layer],
    where: str,
) -> tuple[ir.Model, list[Layer]]:
    distinct = list(dict.fromkeys(tensors))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.tflite"
        path.write_bytes(model.packed(distinct, open_batch=given.batch is None))
        parsed, values = to_onnx(
            lambda: tf2onnx.tfonnx.graphs_from_tflite(str(path)), where, tflite=True
        )
    value_of = dict(zip(distinct, values, strict=True))
    n_own = len(tensors) - len(layers)
    named = [value_of[place] for place in tensors]
    table = expose(
        parsed,
        given,
        own=list(zip(named[:n_own], seen[:n_own], strict=True)),
        layers=list(zip(layers, named[n_own:], seen[n_own:], strict=True)),
    )
    return parsed, table
