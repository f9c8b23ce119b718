"""Flax models of both kinds as one: a function of images that records its calls.

flax.linen has interceptors and flax.nnx has none, and jax2onnx puts its own functions in the place of
both kinds' ``__call__``. So for the length of a forward pass all classes' ``__call__`` are wrapped as
they stand, which works for both and comes on top of what jax2onnx does.
"""

import functools
import inspect
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen, nnx
from jax.extend.core import get_opaque_trace_state

from nrp_converters.factory import class_name
from nrp_onnx.errors import ModelError


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


#: What arguments of ``__call__`` must be in evaluation mode.
_EVALUATION = {
    "train": False,
    "training": False,
    "is_training": False,
    "deterministic": True,
    "use_running_average": True,
}


@dataclass(frozen=True)
class FlaxModel:
    """A model as it is converted.

    Attributes:
        name: of its class.
        kind: its class with the module that it is from.
        api: ``nnx`` or ``linen``.
        n_parameters: numbers in its trainable weights.
        n_bytes: of all its variables.
        run: the model's own result on images, in evaluation mode; fills the calls.
    """

    name: str
    kind: str
    api: str
    n_parameters: int
    n_bytes: int
    run: Callable[[Any, Calls], Any]


def flax_model(model: Any) -> FlaxModel:
    """The model as `FlaxModel`.

    Args:
        model: an ``nnx.Module``, or a ``linen.Module`` that is bound to its variables.

    Raises:
        ModelError: if it is neither.
    """
    if isinstance(model, nnx.Module) and callable(model):
        return _of_nnx(model)
    if isinstance(model, linen.Module) and model.scope is not None:
        return _of_linen(model)
    raise ModelError(
        "this is no flax model that can run",
        expected="an nnx.Module with __call__, or a linen module bound to its variables",
        found=f"a {type(model).__name__} without variables"
        if isinstance(model, linen.Module)
        else type(model).__name__,
        fix="Give a linen model as module.bind(variables).",
    )


def _of_nnx(model: Any) -> FlaxModel:
    arguments = _evaluation_arguments(model)

    def run(images: Any, calls: Calls) -> Any:
        # A copy, made where it is traced: the user's model keeps its mode and its state.
        copy = nnx.clone(model)
        copy.eval()
        paths = {id(part): ".".join(map(str, path)) for path, part in nnx.iter_modules(copy)}

        def is_intermediate(kind: Any) -> bool:
            return issubclass(kind, nnx.Intermediate)

        with watched(nnx.Module, lambda part: paths.get(id(part)), is_intermediate, calls):
            return copy(images, **arguments)

    return _described(model, "nnx", nnx.state(model, nnx.Param), nnx.state(model), run)


def _of_linen(model: Any) -> FlaxModel:
    module, variables = model.unbind()
    arguments = _evaluation_arguments(module)

    def path_of(part: Any) -> str | None:
        return None if part.scope is None else ".".join(part.path)

    def run(images: Any, calls: Calls) -> Any:
        with watched(linen.Module, path_of, lambda kind: kind == "intermediates", calls):
            return module.apply(variables, images, **arguments)

    return _described(module, "linen", variables.get("params", {}), variables, run)


def _described(
    module: Any, api: str, parameters: Any, variables: Any, run: Callable[[Any, Calls], Any]
) -> FlaxModel:
    return FlaxModel(
        name=type(module).__name__,
        kind=class_name(module),
        api=api,
        n_parameters=sum(leaf.size for leaf in jax.tree.leaves(parameters)),
        n_bytes=sum(getattr(leaf, "nbytes", 0) for leaf in jax.tree.leaves(variables)),
        run=run,
    )


def _evaluation_arguments(model: Any) -> dict[str, bool]:
    """Those arguments of ``__call__`` by which flax models are told that they are not in training."""
    asked = inspect.signature(type(model).__call__).parameters
    return {name: value for name, value in _EVALUATION.items() if name in asked}
