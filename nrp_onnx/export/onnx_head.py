"""The head as ONNX: on activations (head.onnx) and on images (predictor.onnx)."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from onnx_ir.tape import Tape

from nrp_onnx.backbone import model_files
from nrp_onnx.backbone.external_data import bytes_inside
from nrp_onnx.backbone.feature_graph import Feature, to_checked_proto
from nrp_onnx.backbone.model_files import PROTOBUF_LIMIT
from nrp_onnx.errors import OutputError
from nrp_onnx.export.folded_head import FoldedHead

RATES = "rates"
SITES_KEY, UNITS_KEY, SCORES_KEY = "nrp_onnx.sites", "nrp_onnx.units", "nrp_onnx.scores"
_DENSE = ("weight", "bias")


def head_model(
    head: FoldedHead, features: Sequence[Feature], facts: dict[str, Any]
) -> onnx.ModelProto:
    """Activations (batch, n_features), one input a layer under its name -> rates (batch, n_sites)."""
    inputs = [
        ir.Value(
            name=feature.layer.name,
            shape=ir.Shape(["batch", feature.n_features]),
            type=ir.TensorType(ir.DataType.FLOAT),
        )
        for feature in features
    ]
    graph = ir.Graph(inputs, [], nodes=[], opset_imports={"": 18}, name="nrp_onnx_head")
    _append_head(graph, inputs, head, "batch")
    return _finished(ir.Model(graph, ir_version=8, producer_name="nrp_onnx"), facts, "head")


def predictor_model(
    head: FoldedHead, feature_graph: ir.Model, facts: dict[str, Any]
) -> onnx.ModelProto:
    """Images, uint8 RGB (batch, H, W, 3) -> rates (batch, n_sites).

    Args:
        feature_graph: with the head's layers as outputs, in its order; it is used up.
    """
    graph = feature_graph.graph
    features = list(graph.outputs)
    batch = graph.inputs[0].shape[0]  # type: ignore[index]
    graph.outputs.clear()
    _append_head(graph, features, head, batch if isinstance(batch, int) else "batch")
    graph.name = "nrp_onnx_predictor"
    return _finished(feature_graph, facts, "predictor")


def save_model(proto: onnx.ModelProto, path: Path, data_folder: Path | None = None) -> None:
    """Write a model, whole or not at all: one file, and ``PATH.data`` if its backbone is over 2 GB.

    Args:
        data_folder: where external data lie that the model refers to.

    Raises:
        OutputError: if the head alone is too large for one file.
    """
    if (n_bytes := bytes_inside(proto)) > PROTOBUF_LIMIT:
        raise OutputError(
            "the model is too large for one ONNX file",
            where=path,
            expected=f"at most {PROTOBUF_LIMIT} bytes of numbers",
            found=f"{n_bytes} bytes",
            fix="Choose a smaller reduction with --reduce.",
        )
    model_files.save_model(proto, path, data_folder)


def _append_head(
    graph: ir.Graph, inputs: Sequence[ir.Value], head: FoldedHead, batch: int | str
) -> None:
    tape = Tape()

    def constant(name: str, array: np.ndarray, dtype: type = np.float32) -> ir.Value:
        tensor = ir.tensor(array.astype(dtype), name=f"nrp/{name}")
        value = ir.Value(name=tensor.name, const_value=tensor)
        value.shape, value.type = ir.Shape(array.shape), ir.TensorType(tensor.dtype)
        graph.register_initializer(value)
        return value

    def dense(x: ir.Value, name: str, *weights: np.ndarray) -> ir.Value:
        values = [
            constant(f"{name}.{part}", array) for part, array in zip(_DENSE, weights, strict=False)
        ]
        return tape.op("Gemm", [x, *values], {"transB": 1}, name=f"nrp/{name}")

    local, linear = [], []
    for place, (x, layer) in enumerate(zip(inputs, head.layers, strict=True)):
        centred = tape.op("Sub", [x, constant(f"layer.{place}.mean", layer.mean)])
        if layer.linear is not None:
            linear.append(dense(centred, f"linear.{place}", layer.linear))
        if layer.l1 is not None:
            if layer.basis is not None:
                centred = dense(centred, f"basis.{place}", layer.basis)
            local.append(tape.op("Relu", [dense(centred, f"l1.{place}", *layer.l1)]))
    if head.n_heads == 1:
        joined = tape.op("Concat", local, {"axis": 1})
        l2 = tape.op("Relu", [dense(joined, "l2", head.l2[0][0], head.l2[1][0])])
    else:
        l2 = _averaged_l2(tape, constant, local, head)
    rates = dense(l2, "out", *head.out)
    for value in linear:
        rates = tape.op("Add", [rates, value])
    rates.name = RATES
    rates.shape = ir.Shape([batch, len(head.out[1])])
    rates.type = ir.TensorType(ir.DataType.FLOAT)
    for place, node in enumerate(tape.nodes):
        node.name = node.name or f"nrp/node_{place}"
        for output in node.outputs:
            output.name = output.name or f"nrp/value_{place}"
    graph.extend(list(tape.nodes))
    graph.outputs.append(rates)


def _averaged_l2(
    tape: Tape, constant: Callable[..., ir.Value], local: Sequence[ir.Value], head: FoldedHead
) -> ir.Value:
    """NRP-L2 of several heads, (batch, C * units): one matrix product for each head, in a stack."""
    weights, biases = head.l2
    split = constant("heads", np.array([0, head.n_heads, -1]), np.int64)
    apart = [tape.op("Reshape", [value, split]) for value in local]
    joined = tape.op("Transpose", [tape.op("Concat", apart, {"axis": 2})], {"perm": [1, 0, 2]})
    product = tape.op("MatMul", [joined, constant("l2.weight", weights.transpose(0, 2, 1))])
    shifted = tape.op("Add", [product, constant("l2.bias", biases[:, None])])
    l2 = tape.op("Transpose", [tape.op("Relu", [shifted])], {"perm": [1, 0, 2]})
    return tape.op("Reshape", [l2, constant("joined", np.array([0, -1]), np.int64)])


def _finished(model: ir.Model, facts: dict[str, Any], what: str) -> onnx.ModelProto:
    for key, value in facts.items():
        model.metadata_props[key] = value if isinstance(value, str) else json.dumps(value)
    return to_checked_proto(model, what)
