"""Finds the layers of an ONNX graph that carries no layer table."""

import onnx_ir as ir

from nrp_onnx.backbone.layer_names import module_paths, tensor_names
from nrp_onnx.backbone.layer_table import Layer, guess_layout

#: Operators that only move, copy or describe numbers: their outputs are no layers of their own.
MOVING_OPS = frozenset(
    [
        "Cast",
        "Dropout",
        "Expand",
        "Flatten",
        "Gather",
        "Identity",
        "Pad",
        "Reshape",
        "Shape",
        "Slice",
        "Split",
        "Squeeze",
        "Transpose",
        "Unsqueeze",
    ]
)


def image_dependent_nodes(model: ir.Model) -> list[ir.Node]:
    """The nodes that compute from the image, in order; what only reads its shape is left out."""
    initializers = set(model.graph.initializers)
    reached = {value for value in model.graph.inputs if value.name not in initializers}
    nodes = []
    for node in model.graph:
        if node.op_type != "Shape" and any(value in reached for value in node.inputs if value):
            nodes.append(node)
            reached.update(node.outputs)
    return nodes


def derive_layers(model: ir.Model) -> list[Layer]:
    """The layer table of a graph: PyTorch module paths where its nodes carry them, else tensor names.

    Candidates are the floating-point tensors of rank 2 to 4 that depend on the image, less those of
    `MOVING_OPS`. Where nodes have module paths, the last tensor made inside a module is its output.
    """
    candidates = [
        node
        for node in image_dependent_nodes(model)
        if node.op_type not in MOVING_OPS and _is_activation(node.outputs[0])
    ]
    by_module: dict[str, ir.Node] = {}
    for node in candidates:
        for path in module_paths(node):
            by_module[path] = node
    named = list(by_module.items())
    if not named:
        names = tensor_names([node.outputs[0].name or "" for node in candidates])
        named = list(zip(names, candidates, strict=True))
    order = {id(node): place for place, node in enumerate(candidates)}
    named.sort(key=lambda pair: (order[id(pair[1])], -pair[0].count(".")))
    layers = []
    for depth, (name, node) in enumerate(named):
        shape = _shape_of_one_image(node.outputs[0])
        tensor = node.outputs[0].name or ""
        layers.append(Layer(name, tensor, shape, guess_layout(shape), node.op_type, depth))
    return layers


def _is_activation(value: ir.Value) -> bool:
    if value.dtype is not None and not value.dtype.is_floating_point():
        return False
    return bool(value.name) and (value.shape is None or 2 <= len(value.shape) <= 4)


def _shape_of_one_image(value: ir.Value) -> tuple[int, ...] | None:
    if value.shape is None:
        return None
    dims = [dim for dim in value.shape[1:] if isinstance(dim, int)]
    return tuple(dims) if len(dims) == len(value.shape) - 1 else None
