"""The calls of a Keras model's layers while it is traced, and what they return."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from nrp_onnx.converters.keras_package import keras
from nrp_onnx.converters.tensorflow_package import tf


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
