"""SPEC ``graph_def:FILE.pb``: a frozen graph of TensorFlow 1, a GraphDef with its weights inside."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from google.protobuf.message import DecodeError

from nrp_converters.converted_model import ConvertedModel
from nrp_converters.image_input import SourceInput, image_input
from nrp_converters.request import Request
from nrp_converters.specs import quiet
from nrp_converters.tensorflow.frozen_graph import convert_graph, fitted_preprocessing
from nrp_converters.tensorflow.graph import frozen, told
from nrp_converters.tensorflow.packages import tf
from nrp_onnx.errors import ModelError, OptionError
from nrp_onnx.files import sha256_of_file

_VARIABLES = ("Variable", "VariableV2", "VarHandleOp")
#: Ops that end a graph and are no answer for an image.
_NO_RESULTS = ("Assert", "Const", "NoOp", "Placeholder", "Print", "PrintV2")


def from_spec(name: str, request: Request) -> ConvertedModel:
    """Convert a frozen graph; its outputs are the tensors that nothing in it takes.

    Raises:
        OptionError, ModelError: if there is no such file, its weights are not inside, it takes
            anything but one batch of images, or it cannot be converted.
    """
    where, path = f"graph_def:{name}", Path(name)
    if request.weights is not None:
        raise OptionError(
            "a frozen graph has its own weights",
            where=where,
            found=f"--weights {request.weights}",
            fix="Leave --weights out.",
        )
    definition = _read(path, where)
    graph, given = function_of(definition, request.input_size, [], where)
    spec = fitted_preprocessing(graph, given, request, where)
    source = {"spec": f"graph_def:{path.name}", "sha256": sha256_of_file(path)}
    return convert_graph(graph, given, spec, source, where)


def function_of(
    definition: Any, size: tuple[int, int] | None, outputs: Sequence[str], where: str
) -> tuple[Any, SourceInput]:
    """A frozen function from images to the outputs of a GraphDef, which is changed in place.

    Args:
        definition: with its weights as constants.
        size: (height, width) in pixels, for what its placeholder leaves open.
        outputs: names of tensors, as ``node`` or ``node:0``; none takes those that no node takes.

    Returns:
        The function, and the input that it takes.

    Raises:
        ModelError, OptionError: if it takes anything but one batch of images, or is no valid graph.
    """
    results = [_with_place(name) for name in outputs] or _ends(definition)
    needed = _before(definition, [name.partition(":")[0] for name in results])
    placeholders = [
        node for node in definition.node if node.op == "Placeholder" and node.name in needed
    ]
    described = [
        (node.name, _shape_of(node), tf.dtypes.as_dtype(node.attr["dtype"].type).name)
        for node in placeholders
    ]
    given = image_input(described, size, where)
    (image,) = placeholders
    image.attr["shape"].shape.CopyFrom(tf.TensorShape(given.shape).as_proto())
    for node in definition.node:  # they hold for another image size
        node.attr.pop("_output_shapes", None)
    try:
        with quiet(), tf.device("/cpu:0"):
            whole = tf.compat.v1.wrap_function(
                lambda: tf.graph_util.import_graph_def(definition, name=""), []
            )
            tensor = whole.graph.as_graph_element
            function = whole.prune(tensor(f"{image.name}:0"), [tensor(name) for name in results])
            return frozen(function), given
    except Exception as error:  # ValueError, KeyError, TensorFlow's own
        raise ModelError(
            "TensorFlow cannot read the graph", where=where, found=told(error)
        ) from error


def _read(path: Path, where: str) -> Any:
    if not path.is_file():
        folder = path.is_dir()
        raise OptionError(
            "no such model file",
            where=where,
            expected="a frozen graph FILE.pb",
            found="a folder" if folder else "nothing",
            fix="For a SavedModel use: saved_model:DIR" if folder else None,
        )
    definition = tf.compat.v1.GraphDef()
    try:
        definition.ParseFromString(path.read_bytes())
    except DecodeError:
        definition.Clear()
    if not any(node.op for node in definition.node):
        saved = path.name == "saved_model.pb"
        raise ModelError(
            "this is no frozen graph",
            where=where,
            expected="a GraphDef of TensorFlow",
            found="the file of a SavedModel"
            if saved
            else f"{path.stat().st_size} bytes of another kind",
            fix=f"Use saved_model:{path.parent}" if saved else None,
        )
    unfrozen = [node.name for node in definition.node if node.op in _VARIABLES]
    if unfrozen:
        raise ModelError(
            "the graph is not frozen: its weights are not in the file",
            where=where,
            expected="weights as constants",
            found=f"{len(unfrozen)} variables, such as {unfrozen[0]}",
            fix="Freeze it with its checkpoint, or give the SavedModel.",
        )
    return definition


def _shape_of(node: Any) -> list[int | None]:
    """The shape of a placeholder, with the channels last where it leaves all open."""
    shape = node.attr["shape"].shape
    if shape.unknown_rank or "shape" not in node.attr:
        return [None, None, None, 3]
    return [None if dim.size < 0 else int(dim.size) for dim in shape.dim]


def _with_place(name: str) -> str:
    return name if ":" in name else f"{name}:0"


def _producer(name: str) -> str:
    """The node that an input of a node names: ``^control``, ``node`` or ``node:1``."""
    return name.removeprefix("^").partition(":")[0]


def _ends(definition: Any) -> list[str]:
    """The tensors of nodes that no other takes."""
    taken = {_producer(name) for node in definition.node for name in node.input}
    return [
        f"{node.name}:0"
        for node in definition.node
        if node.name not in taken and node.op not in _NO_RESULTS
    ]


def _before(definition: Any, results: Sequence[str]) -> set[str]:
    """The nodes that these need, themselves with them."""
    inputs = {node.name: node.input for node in definition.node}
    needed, waiting = set[str](), list(results)
    while waiting:
        name = waiting.pop()
        if name not in needed:
            needed.add(name)
            waiting += map(_producer, inputs.get(name, ()))
    return needed
