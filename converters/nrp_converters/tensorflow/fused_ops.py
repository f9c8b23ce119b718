"""Takes apart the fused ops of graphs that were optimised: what ONNX has is their parts.

Before::

    _FusedConv2D(x, kernel, bias; fused_ops=[BiasAdd, Relu6]) -> y

After::

    Conv2D(x, kernel) -> y/Conv2D;  BiasAdd(y/Conv2D, bias) -> y/BiasAdd;  Relu6(y/BiasAdd) -> y
"""

from typing import Any

from nrp_converters.tensorflow.packages import tf
from nrp_onnx.errors import ModelError

#: Fused ops, as TensorFlow and TensorFlow.js name them, and what they begin with.
_FIRST = {
    "_FusedConv2D": "Conv2D",
    "_FusedDepthwiseConv2dNative": "DepthwiseConv2dNative",
    "FusedDepthwiseConv2dNative": "DepthwiseConv2dNative",
    "_FusedMatMul": "MatMul",
}
#: Attributes that the first op takes over.
_OWN = {
    "Conv2D": ("strides", "padding", "data_format", "dilations", "explicit_paddings"),
    "DepthwiseConv2dNative": ("strides", "padding", "data_format", "dilations"),
    "MatMul": ("transpose_a", "transpose_b"),
}
_ACTIVATIONS = ("Relu", "Relu6", "Elu", "Sigmoid", "Tanh", "LeakyRelu")
_PRELU = "Prelu"


def take_apart(definition: Any, where: str) -> None:
    """Replace the fused ops of a GraphDef by their parts, in place; results keep their names.

    Raises:
        ModelError: if something is fused that is not known.
    """
    nodes = []
    for node in definition.node:
        if node.op in _FIRST:
            nodes += _parts(node, where)
        elif node.op == _PRELU:  # TensorFlow.js's own: TensorFlow has no such op
            nodes += _prelu(node, node.name, *node.input)
        else:
            nodes.append(node)
    kept = [_copy(node) for node in nodes]
    del definition.node[:]
    definition.node.extend(kept)


def _parts(node: Any, where: str) -> list[Any]:
    steps = [step.decode() for step in node.attr["fused_ops"].list.s]
    first = _FIRST[node.op]
    inputs = [name for name in node.input if not name.startswith("^")]
    control = [name for name in node.input if name.startswith("^")]
    last, arguments = len(steps) - 1, inputs[2:]
    made = _node(node, first, f"{node.name}/{first}" if steps else node.name, inputs[:2] + control)
    for key in _OWN[first]:
        if key in node.attr:
            made.attr[key].CopyFrom(node.attr[key])
    _set_type(made, node)
    parts = [made]
    for place, step in enumerate(steps):
        name = node.name if place == last else f"{node.name}/{step}"
        before = parts[-1].name
        if step == "BiasAdd":
            parts.append(_node(node, step, name, [before, arguments.pop(0)]))
            if "data_format" in node.attr:
                parts[-1].attr["data_format"].CopyFrom(node.attr["data_format"])
        elif step in _ACTIVATIONS:
            parts.append(_node(node, step, name, [before]))
            if step == "LeakyRelu" and "leakyrelu_alpha" in node.attr:
                parts[-1].attr["alpha"].CopyFrom(node.attr["leakyrelu_alpha"])
        elif step == _PRELU:
            parts += _prelu(node, name, before, arguments.pop(0))
            continue
        else:
            raise ModelError(
                "the graph has an op fused that is not known",
                where=f"{where}, node {node.name}",
                expected=", ".join(("BiasAdd", *_ACTIVATIONS, _PRELU)),
                found=step,
            )
        _set_type(parts[-1], node)
    return parts


def _prelu(node: Any, name: str, x: str, alpha: str) -> list[Any]:
    """``relu(x) - alpha * relu(-x)``."""
    steps = [
        ("Relu", f"{name}/positive", [x]),
        ("Neg", f"{name}/turned", [x]),
        ("Relu", f"{name}/negative", [f"{name}/turned"]),
        ("Mul", f"{name}/scaled", [alpha, f"{name}/negative"]),
        ("Sub", name, [f"{name}/positive", f"{name}/scaled"]),
    ]
    parts = []
    for op, made, inputs in steps:
        parts.append(_node(node, op, made, inputs))
        _set_type(parts[-1], node)
    return parts


def _set_type(part: Any, node: Any) -> None:
    """The type of the numbers; float32 where an op of TensorFlow.js does not say it."""
    if "T" in node.attr:
        part.attr["T"].CopyFrom(node.attr["T"])
    else:
        part.attr["T"].type = tf.float32.as_datatype_enum


def _node(like: Any, op: str, name: str, inputs: list[str]) -> Any:
    made = type(like)(op=op, name=name)
    made.input.extend(inputs)
    return made


def _copy(node: Any) -> Any:
    copy = type(node)()
    copy.CopyFrom(node)
    return copy
