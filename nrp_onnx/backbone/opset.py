"""Lifts models of old opsets, and what else old exporters wrote otherwise than new ones do."""

from pathlib import Path

import onnx

from nrp_onnx.errors import ModelError

#: The first opset whose Resize has antialiasing, which the preprocessing nodes need.
MINIMUM_OPSET = 18
#: Opset 18 belongs to IR version 8.
_MINIMUM_IR = 8


def opset_of(proto: onnx.ModelProto) -> int:
    """The version of the standard operators; 0 where the model names none."""
    return next((o.version for o in proto.opset_import if o.domain in ("", "ai.onnx")), 0)


def without_listed_initializers(proto: onnx.ModelProto) -> None:
    """Take initialisers out of the graph's inputs, in place.

    Before IR version 4 they had to be there; they are weights, and no user feeds them.
    """
    weights = {tensor.name for tensor in proto.graph.initializer}
    inputs = [value for value in proto.graph.input if value.name not in weights]
    if len(inputs) < len(proto.graph.input):
        del proto.graph.input[:]
        proto.graph.input.extend(inputs)
    proto.ir_version = max(proto.ir_version, 4)


def lifted(proto: onnx.ModelProto, path: Path) -> onnx.ModelProto:
    """The model at `MINIMUM_OPSET` or later; the metadata of model and nodes are kept.

    Names of tensors stay, but for operators that become several: Softmax before opset 13 is one.

    Raises:
        ModelError: if its opset cannot be lifted.
    """
    opset = opset_of(proto)
    if opset >= MINIMUM_OPSET:
        return proto
    try:
        result = onnx.version_converter.convert_version(proto, MINIMUM_OPSET)
    except Exception as error:
        raise ModelError(
            f"its opset {opset} cannot be lifted to {MINIMUM_OPSET}",
            where=path,
            found=str(error).strip().partition("\n")[0] or type(error).__name__,
            fix=f"Export it again with opset {MINIMUM_OPSET} or later.",
        ) from None
    # The converter keeps the old number, under which initialisers would have to be inputs too.
    result.ir_version = max(proto.ir_version, _MINIMUM_IR)
    del result.metadata_props[:]
    result.metadata_props.extend(proto.metadata_props)
    before = {node.output[0]: node for node in proto.graph.node if node.output}
    for node in result.graph.node:
        same = before.get(node.output[0]) if node.output else None
        if same is not None:  # it drops the metadata of nodes
            del node.metadata_props[:]
            node.metadata_props.extend(same.metadata_props)
    return result
