"""The calls of a flax model's submodules during a forward pass, and what they return.

flax.linen has interceptors and flax.nnx has none, and jax2onnx puts its own functions in the place of
both kinds' ``__call__``. So for the length of a forward pass all classes' ``__call__`` are wrapped as
they stand, which works for both and comes on top of what jax2onnx does.
"""

import functools
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import get_opaque_trace_state


@dataclass(frozen=True)
class Call:
    """A call that has returned.

    Attributes:
        path: of the submodule, such as ``blocks.0.conv``; of a value that a module has sown, the
            module's path and the value's name.
        op: the submodule's class, or ``sow``.
        array: what it returned, if that is one floating-point array, made outside inner
            transformations (``nnx.scan``, ``nn.remat``, ...); arrays made inside these stay there.
    """

    path: str
    op: str
    array: jax.Array | None


@dataclass
class Calls:
    """What has happened in one forward pass.

    Attributes:
        returned: the calls in the order in which they returned.
        running: paths of the submodules that have been called and have not returned, outermost
            first; after an exception, the last is the one that raised it.
    """

    returned: list[Call] = field(default_factory=list)
    running: list[str] = field(default_factory=list)

    def names(self) -> list[str]:
        """A name for each call: its path, with #1, #2, ... where there is more than one of it."""
        total, so_far = Counter(call.path for call in self.returned), Counter[str]()
        names = []
        for call in self.returned:
            so_far[call.path] += 1
            names.append(call.path if total[call.path] == 1 else f"{call.path}#{so_far[call.path]}")
        return names


@contextmanager
def watched(
    base: Any,
    path_of: Callable[[Any], str | None],
    is_intermediate: Callable[[Any], bool],
    calls: Calls,
) -> Iterator[None]:
    """Record the calls of submodules, for the length of the block.

    Args:
        base: the class that all modules are made from: ``nnx.Module`` or ``linen.Module``.
        path_of: the path of a module; empty for the model itself, None for one that is no part of it.
        is_intermediate: whether what is sown with that first argument is an intermediate value.
        calls: is filled.
    """
    level = get_opaque_trace_state(convention="flax")

    def record(path: str, op: str, value: Any) -> None:
        arrays = arrays_in(value)
        outside = get_opaque_trace_state(convention="flax") == level
        calls.returned.append(Call(path, op, arrays[0] if outside and len(arrays) == 1 else None))

    def watching(original: Any) -> Any:
        @functools.wraps(original)
        def call(module: Any, *args: Any, **kwargs: Any) -> Any:
            # A class that calls its parent's __call__ is one layer, not two.
            path = path_of(module) if type(module).__call__ is call else None
            if not path:
                return original(module, *args, **kwargs)
            calls.running.append(path)
            value = original(module, *args, **kwargs)
            calls.running.pop()
            record(path, type(module).__name__, value)
            return value

        return call

    def sow(module: Any, kind: Any, name: str, value: Any, *args: Any, **kwargs: Any) -> Any:
        path = path_of(module)
        if path is not None and is_intermediate(kind):
            record(f"{path}.{name}" if path else name, "sow", value)
        return original_sow(module, kind, name, value, *args, **kwargs)

    original_sow = base.sow
    originals = [(kind, vars(kind)["__call__"]) for kind in _classes(base)]
    try:
        base.sow = sow
        for kind, original in originals:
            kind.__call__ = watching(original)
        yield
    finally:
        base.sow = original_sow
        for kind, original in originals:
            kind.__call__ = original


def arrays_in(value: Any) -> list[jax.Array]:
    """The floating-point arrays in what a module returned: one, or nested in tuples and dicts."""
    leaves = [leaf for leaf in jax.tree.leaves(value) if hasattr(leaf, "dtype")]
    return [leaf for leaf in leaves if jnp.issubdtype(leaf.dtype, jnp.floating)]


def _classes(base: Any) -> list[Any]:
    """The class and all that are made from it, if they have a ``__call__`` of their own."""
    found, queue = [], [base]
    for kind in queue:
        queue.extend(sub for sub in kind.__subclasses__() if sub not in queue)
        if "__call__" in vars(kind):
            found.append(kind)
    return found
