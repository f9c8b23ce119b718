"""Flax models of both kinds, nnx and linen, as one: a function of images that records its calls."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
from flax import linen, nnx

from nrp_onnx.converters.flax_calls import Calls, watched
from nrp_onnx.errors import ModelError

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
    kind = type(module)
    return FlaxModel(
        name=kind.__name__,
        kind=f"{kind.__module__}.{kind.__qualname__}",
        api=api,
        n_parameters=sum(leaf.size for leaf in jax.tree.leaves(parameters)),
        n_bytes=sum(getattr(leaf, "nbytes", 0) for leaf in jax.tree.leaves(variables)),
        run=run,
    )


def _evaluation_arguments(model: Any) -> dict[str, bool]:
    """Those arguments of ``__call__`` by which flax models are told that they are not in training."""
    asked = inspect.signature(type(model).__call__).parameters
    return {name: value for name, value in _EVALUATION.items() if name in asked}
