"""Finds and names the layers of an ONNX graph that carries no layer table."""

import ast
import re
from collections.abc import Sequence

import onnx_ir as ir

from nrp_onnx.backbone.layers import Layer, guess_layout

#: The node metadata in which PyTorch's exporter keeps the path of the module a node came from.
TORCH_SCOPES = "pkg.torch.onnx.name_scopes"

#: What TensorFlow puts before the names of all nodes of a function.
_TF_CALLS = re.compile(r"^(?:(?:Stateful)?PartitionedCall(?:_\d+)?/)+")
_TF_OUTPUT = re.compile(r":(\d+)$")


def module_paths(node: ir.Node) -> list[str]:
    """Module paths of PyTorch from the outermost to the innermost; none for other nodes.

    Its newer exporter keeps them in the metadata and adds the node's own name last. Its older one
    names a node ``/layer1/layer1.0/conv1/Conv``: module names, and the operator.
    """
    text = node.metadata_props.get(TORCH_SCOPES)
    if text is not None:
        return [path for path in ast.literal_eval(text)[:-1] if path]
    *scopes, last = (node.name or "").split("/")
    if not scopes or scopes.pop(0) or last.partition("_")[0] != node.op_type:
        return []
    paths: list[str] = []
    parts: list[str] = []
    for scope in scopes:
        # A child of a container carries the container's own name before its number.
        if parts and scope.startswith(f"{parts[-1]}."):
            parts[-1] = scope
        else:
            parts.append(scope)
        paths.append(".".join(parts))
    return paths


def tensor_names(tensors: Sequence[str]) -> list[str]:
    """A name for each tensor: its own, without what TensorFlow adds to the names of its layers.

    ``StatefulPartitionedCall/model/conv1/Conv2D:0`` becomes ``model/conv1/Conv2D``. A tensor whose
    short name another has keeps its own.
    """
    short = [_TF_CALLS.sub("", name) for name in tensors]
    short = [re.sub(r":0$", "", name) if _TF_OUTPUT.search(name) else name for name in short]
    return [
        name if name and short.count(name) == 1 and (name == own or name not in tensors) else own
        for name, own in zip(short, tensors, strict=True)
    ]


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
