"""Chooses layers: by name or number, or a handful spread over the depth of the backbone."""

import difflib
from collections.abc import Sequence

import onnx_ir as ir

from nrp_onnx.backbone.find_layers import image_dependent_nodes
from nrp_onnx.backbone.layers import Layer
from nrp_onnx.backbone.model import Backbone
from nrp_onnx.errors import OptionError
from nrp_onnx.notes import Notes

#: How many layers ``auto`` chooses at most.
HANDFUL = 5

_WEIGHTED = frozenset(("Conv", "Gemm", "MatMul", "ConvTranspose"))


def select_layers(
    backbone: Backbone, choice: str | Sequence[str], notes: Notes | None = None
) -> list[Layer]:
    """The layers that ``--layers`` names, in order of depth.

    Args:
        choice: ``auto``, or names or numbers: separated by commas, or as a sequence. A number is the
            layer's place in what ``nrp-onnx layers`` lists, from 0. A layer whose name is a number
            is meant by it, and in a model with such names, numbers are names only.
        notes: is told which layers numbers stand for.

    Raises:
        OptionError: for a name or a number that the backbone does not have; it says which are near.
    """
    if choice == "auto":
        return auto_layers(backbone)
    known = {layer.name: layer for layer in backbone.layers}
    by_number = not any(map(_is_number, known))
    chosen: dict[str, Layer] = {}
    numbered: dict[str, str] = {}
    parts = choice.split(",") if isinstance(choice, str) else choice
    for name in filter(None, (part.strip() for part in parts)):
        layer = known.get(name)
        if layer is None and by_number and _is_number(name) and int(name) < len(known):
            layer = backbone.layers[int(name)]
            numbered[name] = layer.name
        if layer is None:
            raise _no_such_layer(backbone, name, by_number)
        chosen[layer.name] = layer
    if not chosen:
        raise OptionError(
            "no layer is named", where="--layers", expected="auto, or names or numbers"
        )
    if numbered and notes is not None:
        pairs = ", ".join(f"{number} is {name}" for number, name in numbered.items())
        notes.say(f"--layers by number: {pairs}")
    return sorted(chosen.values(), key=lambda layer: layer.depth)


def _is_number(name: str) -> bool:
    return name.isascii() and name.isdigit()


def _no_such_layer(backbone: Backbone, name: str, by_number: bool) -> OptionError:
    names = [layer.name for layer in backbone.layers]
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.3)
    expected = f"one of {len(names)} layers, such as {', '.join(near or names[:3])}"
    if _is_number(name):
        expected = (
            f"a number from 0 to {len(names) - 1}"
            if by_number
            else f"{expected}; numbers are names in this model"
        )
    return OptionError(
        "the model has no such layer",
        where=f"--layers, {backbone.path}",
        expected=expected,
        found=repr(name),
        fix=f"List them with: nrp-onnx layers {backbone.path}",
    )


def auto_layers(backbone: Backbone) -> list[Layer]:
    """Up to `HANDFUL` layers over the depth: the ends of stages, else evenly spaced block ends.

    A block ends where the graph narrows to one tensor that everything later depends on; a stage is a
    run of blocks at one spatial resolution. The class scores and what follows them are left out.
    """
    ends = _block_ends(backbone)
    stages: dict[object, Layer] = {}
    for layer in ends:
        stages[_resolution(layer)] = layer
    chosen = list(stages.values())
    if len(chosen) < min(HANDFUL - 1, len(ends)):
        chosen = _evenly(ends, HANDFUL)
    return sorted(chosen[-HANDFUL:], key=lambda layer: layer.depth)


def spread_layers(backbone: Backbone, count: int) -> list[Layer]:
    """Up to ``count`` ends of blocks (see `auto_layers`), evenly spaced over the depth."""
    return _evenly(_block_ends(backbone), count)


def _block_ends(backbone: Backbone) -> list[Layer]:
    """The layers at which the graph is narrow; all where there are none."""
    model = ir.from_proto(backbone.proto)
    tables = {layer.tensor: layer for layer in backbone.layers}
    # Where a module and the container that ends with it share a tensor, the outer one names it.
    for layer in backbone.layers:
        if layer.name.count(".") < tables[layer.tensor].name.count("."):
            tables[layer.tensor] = layer
    ends = [tables[name] for name in _narrow_tensors(model) if name in tables]
    return ends or list(backbone.layers)


def _resolution(layer: Layer) -> object:
    if layer.shape is None:
        return layer.name
    if layer.layout == "NHWC":
        return layer.shape[:2]
    return layer.shape[1:] if layer.layout == "NCHW" else (layer.layout, layer.shape[:-1])


def _evenly(layers: Sequence[Layer], count: int) -> list[Layer]:
    """``count`` of the layers at equal steps that end with the last."""
    step = len(layers) / min(count, len(layers))
    return [layers[round((place + 1) * step) - 1] for place in range(min(count, len(layers)))]


def _narrow_tensors(model: ir.Model) -> list[str]:
    """Names of the tensors that all paths from the image to the class scores pass, in order.

    Sweeps the nodes in order and keeps the tensors that later nodes still need; where only one is
    left, the graph is narrow there. Linear in the number of edges.
    """
    nodes = image_dependent_nodes(model)
    scores = _first_of_the_scores(nodes, model)
    nodes = nodes[:scores]
    inside = set(map(id, image_dependent_nodes(model)))
    waiting: dict[ir.Value, int] = {}
    narrow = []
    for node in nodes:
        for value in node.inputs:
            if value in waiting:
                waiting[value] -= 1
                if waiting[value] == 0:
                    del waiting[value]
        for value in node.outputs:
            uses = sum(id(use.node) in inside for use in value.uses())
            if uses:
                waiting[value] = uses
        if len(waiting) == 1:
            (value,) = waiting
            if value is node.outputs[0] and value.name:
                narrow.append(value.name)
    return narrow


def _first_of_the_scores(nodes: Sequence[ir.Node], model: ir.Model) -> int:
    """Where the class scores begin: the last weighted node, if the model's output is one vector."""
    output = model.graph.outputs[0]
    shape = output.shape
    is_vector = shape is not None and all(dim == 1 for dim in shape[2:]) and len(shape) >= 2
    weighted = [place for place, node in enumerate(nodes) if node.op_type in _WEIGHTED]
    return weighted[-1] if is_vector and len(weighted) > 1 else len(nodes)
