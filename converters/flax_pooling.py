"""Flax's pooling while jax2onnx traces: jax2onnx 0.17 takes only some of its arguments.

Its own ``max_pool`` and ``avg_pool`` know the window by keyword only and no padding in numbers. Flax's
make everything from one function, ``pool``; so flax's come back, and ``pool`` alone stays jax2onnx's,
with padding in numbers done before it.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import jax.numpy as jnp
from flax import linen, nnx
from flax.linen import pooling

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
