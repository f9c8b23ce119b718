"""Fingerprints of what a tensor is computed from, so that equal computations are known as such.

Two files can agree up to some layer: a network and its twin whose last stage was fine-tuned, or one
file under two names. What that layer depends on is then the same, and its activations are, too.
"""

import hashlib
from collections.abc import Iterable, Iterator

import onnx_ir as ir

from nrp_onnx.backbone.model import Backbone
from nrp_onnx.files import sha256_of_json


def computation_digests(backbone: Backbone, tensors: Iterable[str]) -> dict[str, str]:
    """For each tensor SHA-256 over the nodes, attributes, weights and input that it depends on.

    Names of nodes and tensors do not count, nor does what the tensor does not depend on. A node whose
    effect cannot be seen from these (it holds a subgraph) stands for the whole file.
    """
    model = ir.from_proto(backbone.proto)
    ir.external_data.set_base_dir(model.graph, backbone.path.parent.resolve())
    wanted = dict.fromkeys(tensors)
    values = {value.name: value for value in _values(model)}
    needed = _needed(values[name] for name in wanted)
    digests: dict[ir.Value | None, str] = {None: ""}
    for place, value in enumerate(model.graph.inputs):
        digests[value] = sha256_of_json(["input", place, str(value.dtype), str(value.shape)])
    for value in model.graph.initializers.values():
        if value in needed and value not in digests and value.const_value is not None:
            digests[value] = _of_tensor(value.const_value, backbone.sha256)
    for node in model.graph:
        if not needed.isdisjoint(node.outputs):
            inputs = [digests.get(value, backbone.sha256) for value in node.inputs]
            attributes = [
                [name, _of_attribute(attribute, backbone.sha256)]
                for name, attribute in sorted(node.attributes.items())
            ]
            version = model.opset_imports.get(node.domain)
            made = [node.domain, node.op_type, node.overload, version, attributes, inputs]
            for place, value in enumerate(node.outputs):
                digests[value] = sha256_of_json([*made, place])
    return {name: digests[values[name]] for name in wanted}


def _values(model: ir.Model) -> Iterator[ir.Value]:
    yield from model.graph.inputs
    yield from model.graph.initializers.values()
    for node in model.graph:
        yield from node.outputs


def _needed(values: Iterable[ir.Value]) -> set[ir.Value]:
    """These values, and all that they are computed from."""
    waiting, needed = list(values), set[ir.Value]()
    while waiting:
        value = waiting.pop()
        if value not in needed:
            needed.add(value)
            made = value.producer()
            waiting += [before for before in (made.inputs if made else ()) if before is not None]
    return needed


_PLAIN = frozenset(
    getattr(ir.AttributeType, kind + many)
    for kind in ("FLOAT", "INT", "STRING")
    for many in ("", "S")
)


def _of_attribute(attribute: ir.Attr, whole_file: str) -> list[str]:
    if attribute.type == ir.AttributeType.TENSOR:
        return ["TENSOR", _of_tensor(attribute.as_tensor(), whole_file)]
    if attribute.type in _PLAIN and not attribute.is_ref():
        return [attribute.type.name, repr(attribute.value)]
    return [attribute.type.name, whole_file]


def _of_tensor(tensor: ir.TensorProtocol, whole_file: str) -> str:
    if tensor.dtype == ir.DataType.STRING:
        return whole_file
    described = f"{tensor.dtype} {tensor.shape} ".encode()
    return hashlib.sha256(described + tensor.tobytes()).hexdigest()
