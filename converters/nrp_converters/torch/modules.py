"""Converts a torch.nn.Module, given as an object or by a factory in a file.

Hooks clone these outputs while ``torch.export`` traces the model, so that what is done to them in
place afterwards (``nn.ReLU(inplace=True)``, ``x += y``) leaves them as they were made.
"""

import inspect
import io
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from torch import Tensor, nn

from nrp_converters.converted_model import (
    ConvertedModel,
    check_source,
    name_outputs,
    strip_metadata,
    values_of,
    write_metadata,
)
from nrp_converters.factory import class_name, make_model
from nrp_converters.request import Request
from nrp_converters.specs import quiet
from nrp_converters.torch.evaluation import evaluation, gradient_of
from nrp_converters.torch.layers import (
    Plan,
    failure,
    find_layers,
    layer_outputs,
    main_tensor,
    some_images,
    tensors_in,
    watched,
)
from nrp_converters.torch.wrapped import plain_module
from nrp_onnx.backbone.find_layers import TORCH_SCOPES
from nrp_onnx.backbone.preprocessing import Preprocessing
from nrp_onnx.backbone.preprocessing_nodes import check_fits
from nrp_onnx.errors import ModelError, OptionError
from nrp_onnx.packages import imported

_INPUT, _OUTPUT, _BATCH = "input", "output", "batch"
_DTYPES = {torch.float32: "float32", torch.float16: "float16"}
#: What one protobuf message can hold.
_MAXIMUM_BYTES = 2**31 - 1


def convert(
    model: nn.Module | torch.export.ExportedProgram,
    example_input: Tensor | None = None,
    *,
    preprocessing: Preprocessing,
    source: Mapping[str, Any] | None = None,
) -> ConvertedModel:
    """Export a module in evaluation mode with every submodule's output as an ONNX output.

    A layer is a call of a submodule that returns one floating-point tensor of rank 2 to 4 with the
    batch axis first, alone or in a tuple or dict, or several in a tuple or a dataclass of which the
    first is the layer. It is named by the submodule's path; one that is
    called more than once, by path#1, path#2, ... in the order of the calls. The module is left as
    it was.

    Args:
        model: takes one batch of images, of any number. ``DataParallel`` and ``torch.compile`` are
            taken off; an ``ExportedProgram`` must have an open batch axis.
        example_input: images of shape (batch, 3, H, W) or (batch, H, W, 3), float32 or float16, on
            the module's device. H and W become those of the ONNX model; the values do not matter.
            None takes float32 of shape (1, 3, 224, 224).
        preprocessing: from uint8 RGB images to such an input; size, layout and dtype that it leaves
            open are those of the example.
        source: more about the model's origin, as JSON can hold it.

    Returns:
        The model. Its input is ``input``, its outputs are ``output`` (``output#2``, ... where the
        module returns more than one tensor) and the layers under their names.

    Raises:
        ModelError: if the module cannot be run, traced or expressed in ONNX, depends on the batch
            size or mixes its images, has no layers, or is over 2 GB.
        OptionError: if the preprocessing does not give such an input, the source is no JSON, or
            onnxscript is not installed.
    """
    module: nn.Module = plain_module(model, type(model).__name__)
    origin = _origin(module, source or {})
    imported("onnxscript", "Run: pip install 'nrp-onnx[torch]'.")
    where = type(module).__name__
    if example_input is None:
        example_input = torch.zeros(1, 3, 224, 224)
    spec = _fitting(preprocessing, example_input, where)
    with evaluation(module):
        plan = find_layers(module, example_input)
        exported = _to_onnx(_trace(module, example_input, plan), where)
    _name_batch_axis(exported)
    own = [
        _OUTPUT if place == 0 else f"{_OUTPUT}#{place + 1}" for place in range(len(plan.results))
    ]
    layers = list(plan.layers.values())
    given = name_outputs(exported, [*own, *(layer.name for layer in layers)], taken=[_INPUT])
    table = [
        replace(layer, tensor=tensor)
        for layer, tensor in zip(layers, given[len(own) :], strict=True)
    ]
    strip_metadata(exported, keep=frozenset({TORCH_SCOPES}))
    write_metadata(exported, table, spec, origin)

    def run_source(images: np.ndarray) -> dict[str, np.ndarray]:
        with evaluation(module):
            batch = torch.from_numpy(images).to(example_input.device)
            found = layer_outputs(module, batch, plan)
        return {layer.name: found[number] for number, layer in plan.layers.items()}

    return ConvertedModel(
        ir.to_proto(exported),
        table,
        spec,
        run_source,
        class_gradient=partial(gradient_of, module, example_input.device),
    )


def _origin(module: nn.Module, source: Mapping[str, Any]) -> dict[str, Any]:
    """What is known of the model's origin; refuses what cannot be converted at all."""
    if not isinstance(module, nn.Module):
        raise ModelError(
            "this is no PyTorch model",
            expected="an nn.Module",
            found=type(module).__name__,
            fix="Build the model, and load weights into it with load_state_dict.",
        )
    n_bytes = sum(tensor.nbytes for tensor in (*module.parameters(), *module.buffers()))
    if n_bytes > _MAXIMUM_BYTES:
        raise ModelError(
            "the model is too large for one ONNX file",
            where=type(module).__name__,
            expected="weights of at most 2.1 GB",
            found=f"{n_bytes / 1e9:.1f} GB",
            fix="Convert it with .half() weights and a float16 example.",
        )
    origin = {
        "framework": "torch",
        "version": str(torch.__version__),
        "class": class_name(module),
        "n_parameters": sum(parameter.numel() for parameter in module.parameters()),
    }
    check_source(source)
    return {**origin, **source}


def _fitting(spec: Preprocessing, example: Tensor, where: str) -> Preprocessing:
    """The preprocessing for such an input."""
    shape = tuple(example.shape)
    channels = [axis for axis in (1, 3) if len(shape) == 4 and shape[axis] == 3]
    if not channels or example.dtype not in _DTYPES or shape[0] == 0:
        raise ModelError(
            "the example input is no batch of images",
            where=where,
            expected="shape (batch, 3, H, W) or (batch, H, W, 3), float32 or float16",
            found=f"{shape} {str(example.dtype).removeprefix('torch.')}",
        )
    layout, (height, width) = ("NCHW", shape[2:]) if channels[0] == 1 else ("NHWC", shape[1:3])
    dtype = _DTYPES[example.dtype]
    spec = spec.for_input(height, width, layout, dtype)
    check_fits(spec, height, width, layout, dtype, where)
    return spec


@contextmanager
def _quiet() -> Iterator[None]:
    """Quiet, and without the half-made graph that torch prints when tracing fails."""
    with quiet(), redirect_stderr(io.StringIO()):
        yield


def _trace(module: nn.Module, example: Tensor, plan: Plan) -> torch.export.ExportedProgram:
    """The module as a graph that returns its own results and then the layers."""
    kept: dict[int, Tensor] = {}

    def keep(number: int, _: nn.Module, __: Any, output: Any) -> None:
        if number in plan.layers:
            tensor = main_tensor(output)
            assert tensor is not None
            kept[number] = tensor.clone()

    def with_layers(result: Any) -> tuple[Tensor, ...]:
        if calls.returned != plan.calls:
            raise ModelError(
                "the model takes other steps when it is traced",
                where=type(module).__name__,
                expected=f"{len(plan.calls)} calls of submodules, as when it runs",
                found=len(calls.returned),
                fix="Remove what depends on tracing from forward.",
            )
        results = tensors_in(result)
        return (
            *(results[place].clone() for place in plan.results),
            *(kept[number] for number in plan.layers),
        )

    with _quiet(), watched(module, keep, with_layers) as calls:
        try:
            return torch.export.export(
                _exportable(module),
                (some_images(example, 2),),  # a batch of 1 would be taken for a constant
                dynamic_shapes=({0: torch.export.Dim(_BATCH)},),
                strict=False,
            )
        except ModelError:
            raise
        except Exception as error:  # torch.export lets through whatever a forward raises
            raise failure(
                "torch.export cannot trace the model",
                module,
                calls,
                error,
                "Keep forward free of branches on values, and of len(x): x.shape[0] stays open.",
            ) from error


class _Called(nn.Module):
    """A module around another, for torch.export: it calls the forward of a GraphModule itself, past
    all hooks, and wants a name for each argument."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, images: Tensor) -> Any:
        return self.module(images)


def _exportable(module: nn.Module) -> nn.Module:
    first = next(iter(inspect.signature(module.forward).parameters.values()), None)
    gathers = first is not None and first.kind is inspect.Parameter.VAR_POSITIONAL
    return _Called(module) if gathers or isinstance(module, torch.fx.GraphModule) else module


def _to_onnx(program: torch.export.ExportedProgram, where: str) -> ir.Model:
    try:
        with _quiet():
            exported = torch.onnx.export(program, dynamo=True, input_names=[_INPUT], verbose=False)
    except Exception as error:
        reason: BaseException = error
        while reason.__cause__ is not None:  # the outer ones only say that the export failed
            reason = reason.__cause__
        raise ModelError(
            "the model cannot be expressed in ONNX",
            where=where,
            found=str(reason).strip().partition("\n")[0].rstrip("."),
            fix="Replace that operation by one that ONNX has.",
        ) from error
    assert exported is not None
    return exported.model


def _name_batch_axis(model: ir.Model) -> None:
    """Call the batch axis ``batch``, in place; tracing gave it a symbol of its own."""
    (image,) = model.graph.inputs
    assert image.shape is not None
    symbol = re.compile(rf"\b{image.shape[0]}\b")
    for value in values_of(model):
        if value.shape is not None:
            value.shape = ir.Shape(
                symbol.sub(_BATCH, dim.value)
                if isinstance(dim, ir.SymbolicDim) and dim.value is not None
                else dim
                for dim in value.shape
            )


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed PyTorch's global generators for a block; the caller's random numbers go on after it."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield


def from_spec(name: str, request: Request) -> ConvertedModel:
    """Convert the module that a function returns, with the weights that it comes with.

    Raises:
        OptionError, ModelError: if there is no such function, it returns no module, or that cannot
            be converted.
    """
    if request.weights is not None:
        raise OptionError(
            "a factory brings its own weights",
            where=f"torch:{name}",
            expected="no --weights",
            found=repr(request.weights),
            fix="Load them in the factory.",
        )
    with seeded(request.seed):
        module = plain_module(make_model(name, "torch"), f"torch:{name}")
    if not isinstance(module, nn.Module):
        raise ModelError(
            "the factory returns no PyTorch model",
            where=f"torch:{name}",
            expected="an nn.Module",
            found=type(module).__name__,
        )
    spec = request.preprocessing_or(None)
    height, width = request.size_or_default()
    dtype = next((weight.dtype for weight in module.parameters()), torch.float32)
    example = torch.zeros(1, 3, height, width, dtype=dtype)
    source = {"spec": f"torch:{name}", "seed": request.seed}
    return convert(module, example, preprocessing=spec, source=source)
