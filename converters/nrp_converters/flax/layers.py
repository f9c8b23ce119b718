"""The layers of a Flax module, and poolings as jax2onnx can write them.

Its own ``max_pool`` and ``avg_pool`` know the window by keyword only and no padding in numbers. Flax's
make everything from one function, ``pool``; so flax's come back, and ``pool`` alone stays jax2onnx's,
with padding in numbers done before it.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen, nnx
from flax.linen import pooling

from nrp_converters.flax.models import Calls, FlaxModel, arrays_in
from nrp_onnx.backbone.layers import Layer
from nrp_onnx.errors import ModelError

_NAMES = ("max_pool", "avg_pool", "min_pool")
_HOMES: tuple[Any, ...] = (nnx, linen, pooling)

#: Flax's own functions; this module is imported before jax2onnx replaces them.
_OWN = {
    (home, name): getattr(home, name) for home in _HOMES for name in _NAMES if hasattr(home, name)
}


@contextmanager
def whole_pooling() -> Iterator[None]:
    """Pooling with all of flax's arguments, for the length of the block, inside jax2onnx's trace."""
    of_jax2onnx: Any = pooling.pool

    def pool(
        inputs: Any, init: Any, reduce_fn: Any, window_shape: Any, strides: Any, padding: Any
    ) -> Any:
        if not isinstance(padding, str):
            batch_axes = inputs.ndim - len(padding) - 1
            widths = [(0, 0)] * batch_axes + [tuple(pair) for pair in padding] + [(0, 0)]
            inputs, padding = jnp.pad(inputs, widths, constant_values=init), "VALID"
        strides = strides or (1,) * len(window_shape)
        return of_jax2onnx(inputs, init, reduce_fn, window_shape, strides, padding)

    ours = {**_OWN, **{(home, "pool"): pool for home in _HOMES}}
    before = {(home, name): getattr(home, name) for home, name in ours}
    try:
        for (home, name), function in ours.items():
            setattr(home, name, function)
        yield
    finally:
        for (home, name), function in before.items():
            setattr(home, name, function)


#: Flax has channels last. The key is the rank of an activation, without the batch axis.
_LAYOUTS = {1: "NC", 2: "NTC", 3: "NHWC"}
#: What ONNX Runtime computes with, and the rest of the toolkit reads.
DTYPES = ("float32", "float16")


@dataclass(frozen=True)
class Plan:
    """What to expose of a model.

    Attributes:
        calls: the names of the calls of submodules in the order in which they return.
        layers: for the number of a call, from 0, the layer that it makes; in that order.
        results: places of the model's own results among the arrays that it returns.
        dtypes: of the results, then of the layers.
        shapes: of the results, then of the layers, without the batch axis.
    """

    calls: list[str]
    layers: dict[int, Layer]
    results: list[int]
    dtypes: list[str] = field(default_factory=list)
    shapes: list[tuple[int, ...]] = field(default_factory=list)


@dataclass
class _Run:
    names: list[str]
    ops: list[str]
    arrays: list[jax.ShapeDtypeStruct | None]
    results: list[jax.ShapeDtypeStruct]


def find_layers(model: FlaxModel, image: tuple[int, ...], dtype: str) -> Plan:
    """Run the model on the shapes of 2 and of 3 images: the batch axis is the one that grows.

    Args:
        image: the shape of one image, without the batch axis.

    Raises:
        ModelError: if it does not run, depends on the batch size, or has no layers.
    """
    two, three = (_run(model, (batch, *image), dtype) for batch in (2, 3))
    if two.names != three.names or len(two.results) != len(three.results):
        raise ModelError(
            "the model takes other steps for 3 images than for 2",
            where=model.name,
            expected="the same submodules called, whatever the batch size",
            fix="Remove what depends on the batch size from __call__.",
        )
    layers: dict[int, Layer] = {}
    shown: list[jax.ShapeDtypeStruct] = []
    for number, (name, op) in enumerate(zip(two.names, two.ops, strict=True)):
        array = two.arrays[number]
        shape = _shape_of_one(array, three.arrays[number])
        if array is not None and shape is not None and 1 <= len(shape) <= 3:
            layers[number] = Layer(name, "", shape, _LAYOUTS[len(shape)], op, len(layers))
            shown.append(array)
    if not layers:
        raise ModelError(
            "no layer was found",
            where=model.name,
            expected="submodules that return one floating-point array with the batch axis first",
            found=f"{len(two.names)} calls of submodules, none of which does",
        )
    pairs = enumerate(zip(two.results, three.results, strict=True))
    results = [place for place, pair in pairs if _shape_of_one(*pair) is not None]
    shown = [*(two.results[place] for place in results), *shown]
    names = [*("the result" for _ in results), *(layer.name for layer in layers.values())]
    for name, array in zip(names, shown, strict=True):
        if str(array.dtype) not in DTYPES:
            raise ModelError(
                f"{name} is computed in a type that ONNX Runtime does not compute in",
                where=model.name,
                expected=" or ".join(DTYPES),
                found=array.dtype,
                fix="Make the model with dtype=jnp.float32; its weights may stay as they are.",
            )
    return Plan(
        two.names,
        layers,
        results,
        [str(array.dtype) for array in shown],
        [tuple(array.shape[1:]) for array in shown],
    )


def failure(what: str, model: FlaxModel, calls: Calls, error: Exception, fix: str) -> ModelError:
    """The error for a forward pass that broke off, naming the submodule in which it did."""
    where = f"{model.name}, submodule {calls.running[-1]}" if calls.running else model.name
    return ModelError(what, where=where, found=told(error), fix=fix)


def told(error: BaseException) -> str:
    """An error as part of one line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or ["no message"]
    # Flax ends its messages with the address of a page.
    reason = lines[0].partition(" (https://")[0].rstrip(".:")
    return f"{type(error).__name__}: {reason}"


def _run(model: FlaxModel, shape: tuple[int, ...], dtype: str) -> _Run:
    calls = Calls()

    def forward(images: jax.Array) -> tuple[list[jax.Array], list[jax.Array | None]]:
        result = arrays_in(model.run(images, calls))
        return result, [call.array for call in calls.returned]

    try:
        results, arrays = jax.eval_shape(forward, jax.ShapeDtypeStruct(shape, jnp.dtype(dtype)))
    except Exception as error:  # whatever a __call__ raises
        raise failure(
            f"the model does not run on {shape[0]} images",
            model,
            calls,
            error,
            "Check the example's shape and dtype, that any batch size will do, and that the model "
            "is in evaluation mode or can be told to be.",
        ) from error
    return _Run(calls.names(), [call.op for call in calls.returned], arrays, results)


def _shape_of_one(
    of_two: jax.ShapeDtypeStruct | None, of_three: jax.ShapeDtypeStruct | None
) -> tuple[int, ...] | None:
    """The shape for one image, from those for 2 and 3; None where axis 0 is not the batch."""
    if of_two is None or of_three is None or not of_two.shape:
        return None
    if of_two.shape == (2, *of_three.shape[1:]) and of_three.shape[0] == 3:
        return tuple(of_two.shape[1:])
    return None
