"""A TFLite model without quantisation: weights and activations as the real numbers they stand for."""

import copy
from dataclasses import dataclass
from typing import Any

import flatbuffers
import numpy as np

from nrp_converters.tensorflow.packages import tflite_schema as schema

_NUMBERS: dict[int, np.dtype[Any]] = {
    schema.TensorType.FLOAT32: np.dtype("<f4"),
    schema.TensorType.FLOAT16: np.dtype("<f2"),
    schema.TensorType.INT32: np.dtype("<i4"),
    schema.TensorType.INT64: np.dtype("<i8"),
    schema.TensorType.UINT8: np.dtype("u1"),
    schema.TensorType.INT8: np.dtype("i1"),
    schema.TensorType.INT16: np.dtype("<i2"),
}
_OPERATORS = {
    number: name for name, number in vars(schema.BuiltinOperator).items() if isinstance(number, int)
}
#: They change how numbers are written, not which they are.
_REWRITING = ("QUANTIZE", "DEQUANTIZE")


@dataclass
class FloatModel:
    """A TFLite model in float32 as flatbuffers' objects.

    Attributes:
        model: the whole; `graph` is its main graph, the first.
        quantised: names of the types, of activations or weights, that were not float32.
        n_parameters: numbers in its weights.
        scale, zero_point: of the input as it was quantised, where it was: real = scale * (q - zero).
    """

    model: Any
    quantised: list[str]
    n_parameters: int
    scale: float | None
    zero_point: int | None

    @property
    def graph(self) -> Any:
        return self.model.subgraphs[0]

    def operator(self, op: Any) -> str:
        """The name of an operator, such as CONV_2D."""
        return operator_name(self.model, op)

    def packed(self, outputs: list[int] | None = None, open_batch: bool = False) -> bytes:
        """As a file.

        Args:
            outputs: tensors that the graph is to return; None: its own.
            open_batch: whether the first axis of activations may be any number.
        """
        model = copy.deepcopy(self.model)
        graph = model.subgraphs[0]
        if outputs is not None:
            graph.outputs = np.array(outputs, np.int32)
        if open_batch:
            made = {int(place) for op in graph.operators for place in op.outputs}
            for place in (*graph.inputs, *made):
                tensor = graph.tensors[place]
                if tensor.shape is not None and len(tensor.shape) > 1 and tensor.shape[0] == 1:
                    tensor.shapeSignature = np.array([-1, *tensor.shape[1:]], np.int32)
        builder = flatbuffers.Builder(1024)
        builder.Finish(model.Pack(builder), b"TFL3")
        return bytes(builder.Output())


def read_as_float(content: bytes) -> FloatModel:
    """Read a TFLite file and replace every quantised number by the real number it stands for.

    Raises:
        Exception: of flatbuffers, where the file is damaged.
    """
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(content, 0))
    graph = model.subgraphs[0]
    types = {number: name for name, number in vars(schema.TensorType).items() if name.isupper()}
    model.signatureDefs = None  # they name outputs that may change
    given = graph.tensors[graph.inputs[0]].quantization
    scaled = given is not None and given.scale is not None and len(given.scale) == 1
    found: set[str] = set()
    for tensor in graph.tensors:
        scale = None if tensor.quantization is None else tensor.quantization.scale
        real = tensor.type == schema.TensorType.FLOAT16
        if not real and (scale is None or len(scale) == 0 or not np.any(scale)):
            continue
        if tensor.type == schema.TensorType.FLOAT32 or tensor.type not in _NUMBERS:
            continue
        found.add(types[tensor.type].lower())
        data = model.buffers[tensor.buffer].data
        if data is not None and len(data):
            stored = np.frombuffer(bytes(bytearray(data)), _NUMBERS[tensor.type])
            values = stored.astype(np.float32) if real else _real(stored, tensor)
            buffer = schema.BufferT()
            buffer.data = np.frombuffer(values.astype("<f4").tobytes(), np.uint8)
            model.buffers.append(buffer)
            tensor.buffer = len(model.buffers) - 1
        tensor.type = schema.TensorType.FLOAT32
        tensor.quantization = None
    _drop_rewriting(model, graph)
    weights = {
        int(place)
        for op in graph.operators
        for place in op.inputs
        if place >= 0 and _is_weight(model, graph.tensors[place])
    }
    return FloatModel(
        model,
        sorted(found),
        sum(int(np.prod(graph.tensors[place].shape)) for place in weights),
        float(given.scale[0]) if scaled else None,
        int(given.zeroPoint[0]) if scaled else None,
    )


def operator_name(model: Any, op: Any) -> str:
    code = model.operatorCodes[op.opcodeIndex]
    # Old files have the number in a byte, new ones in a field beside it.
    name: str = _OPERATORS.get(max(code.builtinCode, code.deprecatedBuiltinCode), "CUSTOM")
    return name


def _is_weight(model: Any, tensor: Any) -> bool:
    data = model.buffers[tensor.buffer].data
    numbers = tensor.type == schema.TensorType.FLOAT32 and len(tensor.shape) > 0
    return numbers and data is not None and len(data) > 0


def _real(stored: np.ndarray, tensor: Any) -> np.ndarray:
    """scale * (q - zero point), both per tensor or along one axis."""
    quantised = tensor.quantization
    shape = [int(size) for size in tensor.shape]
    along = [1] * len(shape)
    if len(quantised.scale) > 1:
        along[quantised.quantizedDimension] = len(quantised.scale)
    scale = np.asarray(quantised.scale, np.float64).reshape(along or ())
    zero = np.asarray(quantised.zeroPoint, np.float64)
    if zero.size == 0:
        zero = np.zeros(1)
    zero = zero.reshape(along if zero.size > 1 else ())
    return scale * (stored.reshape(shape).astype(np.float64) - zero)


def _drop_rewriting(model: Any, graph: Any) -> None:
    """Take out the operators that quantise or dequantise: what goes in comes out."""
    same: dict[int, int] = {}
    kept = []
    for op in graph.operators:
        op.inputs = np.array([same.get(int(place), int(place)) for place in op.inputs], np.int32)
        if operator_name(model, op) in _REWRITING:
            same[int(op.outputs[0])] = int(op.inputs[0])
        else:
            kept.append(op)
    graph.operators = kept
    graph.outputs = np.array([same.get(int(out), int(out)) for out in graph.outputs], np.int32)
