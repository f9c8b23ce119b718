"""Converts Flax modules (nnx and linen) through jax2onnx."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import flax
import jax
import numpy as np
import onnx
import onnx_ir as ir
from onnx_ir.passes import common as passes

from nrp_converters.converted_model import (
    ConvertedModel,
    check_source,
    name_outputs,
    strip_metadata,
    write_metadata,
)
from nrp_converters.flax.layers import DTYPES, Plan, failure, find_layers, told, whole_pooling
from nrp_converters.flax.models import Calls, FlaxModel, arrays_in, flax_model
from nrp_converters.flax.packages import check_installed
from nrp_converters.specs import quiet
from nrp_onnx.backbone.preprocessing import Preprocessing
from nrp_onnx.backbone.preprocessing_nodes import check_fits
from nrp_onnx.errors import ModelError

_INPUT, _OUTPUT, _BATCH = "input", "output", "batch"
#: The last one that belongs to IR version 10, which is the latest that the toolkit writes.
_OPSET = 21
#: What one protobuf message can hold.
_MAXIMUM_BYTES = 2**31 - 1


def convert(
    model: Any,
    example_input: Any,
    *,
    preprocessing: Preprocessing,
    source: Mapping[str, Any] | None = None,
) -> ConvertedModel:
    """Export a flax model in evaluation mode with every submodule's output as an ONNX output.

    A layer is a call of a submodule that returns one floating-point array of rank 2 to 4 with the
    batch axis first, alone or in a tuple or dict, or such an array that a module sows
    (``self.sow(nnx.Intermediate, name, value)``, in linen ``self.sow("intermediates", name,
    value)``). It is named by the submodule's path, such as ``blocks.0.conv``; one that comes more
    than once, by path#1, path#2, ... in the order of the calls. What is called inside a
    transformation (``nnx.scan``, ``nn.remat``, ``jax.jit``) is no layer; the module around it is.
    Rank 4 is taken for NHWC, as flax has it. The model is left as it was.

    Args:
        model: an ``nnx.Module``, or a linen module bound to its variables:
            ``module.bind(variables)``. It takes one batch of images, of any number; arguments of its
            ``__call__`` named ``train``, ``training``, ``is_training`` (False), ``deterministic`` or
            ``use_running_average`` (True) are given.
        example_input: an array of images of shape (batch, H, W, 3) or (batch, 3, H, W), float32 or
            float16. H and W become those of the ONNX model; the values do not matter.
        preprocessing: from uint8 RGB images to such an input; size, layout and dtype that it leaves
            open are those of the example.
        source: more about the model's origin, as JSON can hold it.

    Returns:
        The model. Its input is ``input``, its outputs are ``output`` (``output#2``, ... where the
        model returns more than one array) and the layers under their names.

    Raises:
        ModelError: if the model cannot be run, traced or expressed in ONNX, depends on the batch
            size, has no layers, or is over 2 GB.
        OptionError: if the preprocessing does not give such an input, or the source is no JSON.
    """
    flaxen = flax_model(model)
    check_installed(flaxen.name)
    origin = _origin(flaxen, source or {})
    shape, dtype = _shape_and_dtype(example_input, flaxen.name)
    spec = _fitting(preprocessing, shape, dtype, flaxen.name)
    with _quiet():
        plan = find_layers(flaxen, shape[1:], dtype)
        exported = _with_typed_outputs(_to_onnx(flaxen, shape, dtype, plan), plan)
        own = [
            _OUTPUT if place == 0 else f"{_OUTPUT}#{place + 1}"
            for place in range(len(plan.results))
        ]
        layers = list(plan.layers.values())
        given = name_outputs(exported, [*own, *(layer.name for layer in layers)], taken=[_INPUT])
        table = [
            replace(layer, tensor=tensor)
            for layer, tensor in zip(layers, given[len(own) :], strict=True)
        ]
        strip_metadata(exported, keep=frozenset())
        write_metadata(exported, table, spec, origin)
        proto = ir.to_proto(exported)
    _check(proto, flaxen.name)

    def run_source(images: np.ndarray) -> dict[str, np.ndarray]:
        calls = Calls()
        # Else a GPU would round products to fewer bits.
        with _quiet(), jax.default_matmul_precision("highest"):
            flaxen.run(jax.numpy.asarray(images), calls)
        arrays = {number: calls.returned[number].array for number in plan.layers}
        return {layer.name: np.asarray(arrays[number]) for number, layer in plan.layers.items()}

    return ConvertedModel(proto, table, spec, run_source)


def _origin(model: FlaxModel, source: Mapping[str, Any]) -> dict[str, Any]:
    """What is known of the model's origin; refuses what cannot be converted at all."""
    if model.n_bytes > _MAXIMUM_BYTES:
        raise ModelError(
            "the model is too large for one ONNX file",
            where=model.name,
            expected="weights of at most 2.1 GB",
            found=f"{model.n_bytes / 1e9:.1f} GB",
            fix="Make it with param_dtype=jnp.float16 and dtype=jnp.float16.",
        )
    origin = {
        "framework": "flax",
        "version": flax.__version__,
        "api": model.api,
        "jax_version": jax.__version__,
        "class": model.kind,
        "n_parameters": model.n_parameters,
    }
    check_source(source)
    return {**origin, **source}


def _shape_and_dtype(example: Any, where: str) -> tuple[tuple[int, ...], str]:
    shape = tuple(getattr(example, "shape", ()))
    dtype = str(getattr(example, "dtype", type(example).__name__))
    if len(shape) != 4 or 3 not in (shape[1], shape[3]) or 0 in shape or dtype not in DTYPES:
        raise ModelError(
            "the example input is no batch of images",
            where=where,
            expected="an array of shape (batch, H, W, 3) or (batch, 3, H, W), float32 or float16",
            found=f"{shape} {dtype}",
        )
    return shape, dtype


def _fitting(spec: Preprocessing, shape: tuple[int, ...], dtype: str, where: str) -> Preprocessing:
    """The preprocessing for such an input."""
    layout, (height, width) = ("NHWC", shape[1:3]) if shape[3] == 3 else ("NCHW", shape[2:])
    spec = spec.for_input(height, width, layout, dtype)
    check_fits(spec, height, width, layout, dtype, where)
    return spec


@contextmanager
def _quiet() -> Iterator[None]:
    """Quiet, and with the program's own logging left as it was: jax2onnx sets up one for all."""
    handlers = list(logging.root.handlers)
    try:
        with quiet():
            yield
    finally:
        logging.root.handlers[:] = handlers


def _to_onnx(model: FlaxModel, shape: tuple[int, ...], dtype: str, plan: Plan) -> ir.Model:
    """The model as a graph that returns its own results and then the layers."""
    import jax2onnx

    def with_layers(images: Any) -> tuple[Any, ...]:
        calls = Calls()
        try:
            with whole_pooling():
                results = arrays_in(model.run(images, calls))
        except Exception as error:
            raise failure(
                "jax2onnx cannot trace the model",
                model,
                calls,
                error,
                "Keep __call__ free of branches on values and on the number of images.",
            ) from error
        if calls.names() != plan.calls:
            raise ModelError(
                "the model takes other steps when it is traced",
                where=model.name,
                expected=f"{len(plan.calls)} calls of submodules, as when it runs",
                found=len(calls.returned),
                fix="Remove what depends on tracing from __call__.",
            )
        outputs = (
            *(results[place] for place in plan.results),
            *(calls.returned[number].array for number in plan.layers),
        )
        # jax2onnx removes pairs of transposes (from NHWC to ONNX's NCHW and back) with no eye for
        # outputs between them. A barrier becomes an Identity, which it leaves alone.
        return tuple(jax.lax.optimization_barrier(array) for array in outputs)

    # jax2onnx traces with its own operators in the place of flax's. What jax has kept of functions
    # compiled before knows nothing of these, and what it keeps from now on cannot be run.
    jax.clear_caches()
    try:
        exported: ir.Model = jax2onnx.to_onnx(
            with_layers,
            [jax.ShapeDtypeStruct((_symbol(), *shape[1:]), dtype)],
            model_name=model.name,
            opset=_OPSET,
            return_mode="ir",
            input_names=[_INPUT],
        )
    except ModelError:
        raise
    except Exception as error:  # jax2onnx lets through whatever its plugins raise
        raise ModelError(
            "the model cannot be expressed in ONNX",
            where=model.name,
            found=told(error),
            fix="Replace that operation by one that jax2onnx knows.",
        ) from error
    finally:
        jax.clear_caches()
    return exported


def _symbol() -> Any:
    (batch,) = jax.export.symbolic_shape(_BATCH)
    return batch


def _with_typed_outputs(model: ir.Model, plan: Plan) -> ir.Model:
    """Every output a value of its own with type and shape: a layer may return what it was given."""
    graph = model.graph
    seen = {*graph.inputs, *graph.initializers.values()}
    for place, value in enumerate(graph.outputs):
        if value in seen:
            node = ir.node("Identity", [value])
            graph.append(node)
            graph.outputs[place] = node.outputs[0]
            node.outputs[0].name = f"{value.name}/{place}"
        seen.add(graph.outputs[place])
    # The shapes that jax2onnx notes on the way are not kept up by its optimiser, which moves transposes.
    for node in graph:
        for value in node.outputs:
            value.shape = None
    for value, shape, dtype in zip(graph.outputs, plan.shapes, plan.dtypes, strict=True):
        value.shape = ir.Shape([_BATCH, *shape])
        value.type = ir.TensorType(ir.DataType.FLOAT if dtype == "float32" else ir.DataType.FLOAT16)
    passes.RemoveUnusedNodesPass()(model)
    return model


def _check(proto: onnx.ModelProto, where: str) -> None:
    """Refuse a graph that is no valid ONNX: jax2onnx does not look at what it has made."""
    try:
        onnx.checker.check_model(proto, full_check=True)
    except Exception as error:  # onnx's ValidationError, or InferenceError, which is not public
        raise ModelError(
            "jax2onnx made a graph that is no valid ONNX",
            where=where,
            found=told(error),
            fix="Replace the operation by another, and tell the makers of jax2onnx.",
        ) from error
