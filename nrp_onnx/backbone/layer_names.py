"""Names of layers from what exporters leave in a graph: module paths, scopes, names of tensors."""

import ast
import re
from collections.abc import Sequence

import onnx_ir as ir

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
