"""Converts a keras.Model, with every layer under its own name.

The calls of its layers are recorded while TensorFlow traces the model, so that nested models and
layers that are called several times show all that they compute.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx_ir as ir

from nrp_converters.converted_model import ConvertedModel, check_source, write_metadata
from nrp_converters.graph_edits import INPUT, expose, in_steps, layout_of, look_at_outputs
from nrp_converters.image_input import SourceInput, image_input
from nrp_converters.specs import quiet
from nrp_converters.tensorflow.graph import MAXIMUM_BYTES, frozen, graph_to_onnx, told, too_large
from nrp_converters.tensorflow.keras_heads import own_preprocessing
from nrp_converters.tensorflow.packages import keras, tf
from nrp_onnx.backbone.layers import Layer
from nrp_onnx.backbone.preprocessing import Preprocessing
from nrp_onnx.errors import ModelError

__all__ = ["Call", "Calls", "convert", "own_preprocessing", "watched"]


@dataclass(frozen=True)
class Call:
    """A layer's call that has returned one floating-point tensor.

    Attributes:
        path: names of the layers around it and its own, with slashes between them.
        layer: the layer.
        tensor: what it returned.
    """

    path: str
    layer: Any
    tensor: Any


@dataclass
class Calls:
    """Calls of layers in the order in which they returned; ``running`` from the outermost in."""

    made: list[Call] = field(default_factory=list)
    running: list[str] = field(default_factory=list)

    def names(self) -> list[str]:
        """A name for each call: its path, with #1, #2, ... where there is more than one of it."""
        total, so_far = Counter(call.path for call in self.made), Counter[str]()
        names = []
        for call in self.made:
            so_far[call.path] += 1
            names.append(call.path if total[call.path] == 1 else f"{call.path}#{so_far[call.path]}")
        return names


@contextmanager
def watched(root: Any) -> Iterator[Calls]:
    """Record the calls of all layers inside a model, for the length of the block.

    Tensors that live in a loop's or a branch's own graph are left out, as are input layers.
    """
    calls = Calls()
    graph = tf.compat.v1.get_default_graph()
    original = keras.layers.Layer.__call__

    def call(layer: Any, *args: Any, **kwargs: Any) -> Any:
        if layer is root:
            return original(layer, *args, **kwargs)
        calls.running.append(layer.name)
        result = original(layer, *args, **kwargs)  # after an exception, running says where it was
        path = "/".join(calls.running)
        calls.running.pop()
        tensors = [part for part in keras.tree.flatten(result) if isinstance(part, tf.Tensor)]
        if (
            len(tensors) == 1
            and not isinstance(layer, keras.layers.InputLayer)
            and tensors[0].dtype.is_floating
            and tensors[0].graph is graph
        ):
            calls.made.append(Call(path, layer, tensors[0]))
        return result

    keras.layers.Layer.__call__ = call
    try:
        yield calls
    finally:
        keras.layers.Layer.__call__ = original


def convert(
    model: Any,
    example_input: Any = None,
    *,
    preprocessing: Preprocessing,
    source: Mapping[str, Any] | None = None,
) -> ConvertedModel:
    """Export a Keras model as it predicts, with every layer's output as an ONNX output.

    A layer is a call of a Keras layer that returns one floating-point tensor of rank 2 to 4 with the
    batch axis first. It has the layer's name; inside a nested model or layer, outer/inner. One that
    is called more than once is name#1, name#2, ... in the order of the calls.

    Args:
        model: a functional or sequential ``keras.Model`` with one input of images.
        example_input: images of shape (batch, H, W, 3); only for a model that leaves H and W open,
            which then become those of the ONNX model. The values do not matter.
        preprocessing: from uint8 RGB images to the model's input; size, layout and dtype that it
            leaves open are those of the model.
        source: more about the model's origin, as JSON can hold it.

    Returns:
        The model. Its input is ``input``, its outputs are ``output`` (``output#2``, ... where the
        model has more than one) and the layers under their names.

    Raises:
        ModelError: if it is no such model, cannot be traced or expressed in ONNX, has no layers or
            is over 2 GB.
        OptionError: if the preprocessing does not give such an input, or the source is no JSON.
    """
    where = getattr(model, "name", type(model).__name__)
    given = _input_of(model, example_input, where)
    spec = given.fitted(preprocessing, where)
    origin = _origin(model, source or {})
    function, calls, n_own = _trace(model, given, where)

    def run(images: np.ndarray) -> list[np.ndarray]:
        with tf.device("/cpu:0"):
            return [tensor.numpy() for tensor in function(tf.constant(images))]

    seen = look_at_outputs(run, given)
    layers: dict[int, Layer] = {}
    for place, (name, call) in enumerate(zip(calls.names(), calls.made, strict=True), n_own):
        shape = seen[place].shape
        if shape is not None and 1 <= len(shape) <= 3:
            layout = layout_of(shape, _axes(call.layer, given))
            op = type(call.layer).__name__
            layers[place] = Layer(name, "", shape, layout, op, len(layers))
    if not layers:
        raise ModelError(
            "no layer was found",
            where=where,
            expected="layers that return one floating-point tensor with the batch axis first",
            found=f"{len(calls.made)} calls of layers, none of which does",
        )
    graph = frozen(function)
    onnx_model, values = graph_to_onnx(graph, graph.inputs[0], graph.outputs, where)
    table = expose(
        onnx_model,
        given,
        own=list(zip(values[:n_own], seen[:n_own], strict=True)),
        layers=[(layer, values[place], seen[place]) for place, layer in layers.items()],
    )
    write_metadata(onnx_model, table, spec, origin)

    def run_source(images: np.ndarray) -> dict[str, np.ndarray]:
        found = in_steps(run, images, given)
        return {layer.name: found[place] for place, layer in layers.items()}

    return ConvertedModel(ir.to_proto(onnx_model), table, spec, run_source)


def _input_of(model: Any, example: Any, where: str) -> SourceInput:
    """The model's image input; refuses what is no model with known inputs."""
    if not isinstance(model, keras.Model):
        raise ModelError(
            "this is no Keras model",
            where=where,
            expected="a functional or sequential keras.Model",
            found=type(model).__name__,
        )
    inputs = getattr(model, "inputs", None)
    if not inputs:
        if isinstance(model, keras.Sequential):
            raise ModelError(
                "the sequential model does not say what it takes",
                where=where,
                expected="an input shape",
                found="a model that is not built",
                fix="Begin it with keras.Input((H, W, 3)).",
            )
        raise ModelError(
            "a subclassed model shows no graph of its layers",
            where=where,
            expected="a functional or sequential keras.Model",
            found=type(model).__name__,
            fix="Wrap it: x = keras.Input((H, W, 3)); model = keras.Model(x, subclassed(x)).",
        )
    described = [(tensor.name, tensor.shape, tensor.dtype) for tensor in inputs]
    size = None
    if example is not None:
        shape = np.shape(example)
        if len(shape) != 4:
            raise ModelError(
                "the example input is no batch of images",
                where=where,
                expected="shape (batch, H, W, 3) or (batch, 3, H, W)",
                found=shape,
            )
        size = (shape[1], shape[2]) if shape[3] == 3 else (shape[2], shape[3])
    return image_input(described, size, where)


def _origin(model: Any, source: Mapping[str, Any]) -> dict[str, Any]:
    n_parameters = model.count_params()
    if 2 * n_parameters > MAXIMUM_BYTES:  # two bytes each, at the least
        raise too_large(2 * n_parameters, model.name)
    check_source(source)
    kind = f"{type(model).__module__}.{type(model).__qualname__}"
    return {
        "framework": "keras",
        "version": str(keras.__version__),
        "tensorflow": str(tf.__version__),
        "class": kind,
        "n_parameters": int(n_parameters),
        **source,
    }


def _trace(model: Any, given: SourceInput, where: str) -> tuple[Any, Calls, int]:
    """A concrete function from images to the model's outputs and then its layers' outputs.

    Returns:
        The function, the calls of the layers, and how many outputs are the model's own.
    """
    traced: list[tuple[Calls, int]] = []

    def with_layers(images: Any) -> list[Any]:
        with watched(model) as calls:
            try:
                result = model(images, training=False)
            except Exception as error:  # whatever a layer raises
                inside = "/".join(calls.running)
                raise ModelError(
                    "TensorFlow cannot trace the model",
                    where=f"{where}, layer {inside}" if inside else where,
                    found=told(error),
                    fix="Check that it predicts on a batch of such images.",
                ) from error
        own = [part for part in keras.tree.flatten(result) if isinstance(part, tf.Tensor)]
        traced.append((calls, len(own)))
        # Copies: a layer may return what it was given, and one output has one name.
        return [tf.identity(tensor) for tensor in (*own, *(call.tensor for call in calls.made))]

    signature = [tf.TensorSpec(given.shape, given.dtype, name=INPUT)]
    with quiet(), tf.device("/cpu:0"):
        function = tf.function(with_layers, input_signature=signature, autograph=False)
        concrete = function.get_concrete_function()
    return concrete, *traced[-1]


def _axes(layer: Any, given: SourceInput) -> str:
    """The order of the axes of what a layer returns; most take it as it comes."""
    named = {"channels_last": "NHWC", "channels_first": "NCHW"}
    axes: str = named.get(getattr(layer, "data_format", None) or "", given.layout)
    return axes
