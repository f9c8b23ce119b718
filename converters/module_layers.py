"""Which layers a PyTorch module has, found by running it."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from nrp_onnx.backbone.layer_table import Layer, guess_layout
from nrp_onnx.converters.channel_layouts import ChannelLayouts
from nrp_onnx.converters.module_calls import Calls, main_tensor, tensors_in, watched
from nrp_onnx.errors import ModelError


@dataclass(frozen=True)
class Plan:
    """What to expose of a module.

    Attributes:
        calls: the paths of the submodules in the order in which their forwards return.
        layers: for the number of a call, from 0, the layer that it makes; in that order.
        results: places of the module's own results among the tensors that it returns.
    """

    calls: list[str]
    layers: dict[int, Layer]
    results: list[int]


@dataclass
class _Run:
    """Shapes seen in one forward pass; None for what is not a floating-point tensor."""

    paths: list[str] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    ops: list[str] = field(default_factory=list)
    shapes: list[tuple[int, ...] | None] = field(default_factory=list)
    layouts: ChannelLayouts = field(default_factory=ChannelLayouts)
    results: list[tuple[int, ...]] = field(default_factory=list)


def find_layers(module: nn.Module, example: Tensor) -> Plan:
    """Run the module on 2 and on 3 images: the batch axis is the one that grows.

    Raises:
        ModelError: if it does not run, depends on the batch size, or has no layers.
    """
    two, three = _run(module, example, 2), _run(module, example, 3)
    if two.paths != three.paths or len(two.results) != len(three.results):
        raise ModelError(
            "the model takes other steps for 3 images than for 2",
            where=type(module).__name__,
            expected="the same submodules called, whatever the batch size",
            fix="Remove what depends on the batch size from forward.",
        )
    layouts = two.layouts.found()
    layers: dict[int, Layer] = {}
    for number, (name, op) in enumerate(zip(two.names, two.ops, strict=True)):
        shape = _shape_of_one(two.shapes[number], three.shapes[number])
        if shape is not None and 1 <= len(shape) <= 3:
            layout = layouts[number] or guess_layout(shape)
            layers[number] = Layer(name, "", shape, layout, op, len(layers))
    if not layers:
        raise ModelError(
            "no layer was found",
            where=type(module).__name__,
            expected="submodules that return a floating-point tensor with the batch axis first",
            found=f"{len(two.paths)} calls of submodules, none of which does",
        )
    pairs = enumerate(zip(two.results, three.results, strict=True))
    results = [place for place, pair in pairs if _shape_of_one(*pair) is not None]
    return Plan(two.paths, layers, results)


def layer_outputs(module: nn.Module, images: Tensor, plan: Plan) -> dict[int, np.ndarray]:
    """What each layer of the plan makes of images, by the number of its call."""
    found: dict[int, np.ndarray] = {}

    def keep(number: int, _: nn.Module, __: Any, output: Any) -> None:
        if number in plan.layers:
            tensor = main_tensor(output)
            assert tensor is not None
            found[number] = tensor.detach().clone().cpu().numpy()

    buffers = {name: buffer.clone() for name, buffer in module.named_buffers()}
    with watched(module, keep, lambda result: result):
        torch.func.functional_call(module, buffers, (images,))
    return found


def some_images(example: Tensor, batch: int) -> Tensor:
    """The first image of the example, ``batch`` times: a tensor of its own."""
    return example.detach()[:1].repeat(batch, 1, 1, 1)


def failure(what: str, module: nn.Module, calls: Calls, error: Exception, fix: str) -> ModelError:
    """The error for a forward pass that broke off, naming the submodule in which it did."""
    inner = calls.running[-1] if calls.running else ""
    where = f"{type(module).__name__}, submodule {inner}" if inner else type(module).__name__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or ["no message"]
    reason = lines[0]
    if reason.startswith("Constraints violated") and lines[1:]:
        # torch.export says on the second line what it is about the batch axis that does not hold.
        reason = lines[1].removeprefix("- ").partition(". ")[0]
    reason = reason.rstrip(".")
    return ModelError(what, where=where, found=f"{type(error).__name__}: {reason}", fix=fix)


def _run(module: nn.Module, example: Tensor, batch: int) -> _Run:
    run = _Run()

    def on_return(_: int, part: nn.Module, given: Any, output: Any) -> None:
        tensor = main_tensor(output)
        run.ops.append(type(part).__name__)
        run.shapes.append(None if tensor is None else tuple(tensor.shape))
        run.layouts.add(part, given, tensor)

    def on_result(result: Any) -> Any:
        run.results = [tuple(tensor.shape) for tensor in tensors_in(result)]
        return result

    # Buffers of its own, so that a forward that counts or averages leaves no trace in the module.
    buffers = {name: buffer.clone() for name, buffer in module.named_buffers()}
    with watched(module, on_return, on_result) as calls:
        try:
            torch.func.functional_call(module, buffers, (some_images(example, batch),))
        except Exception as error:  # whatever a forward raises
            raise failure(
                f"the model does not run on {batch} images",
                module,
                calls,
                error,
                "Check the example's shape, dtype and device, and that any batch size will do.",
            ) from error
    run.paths, run.names = calls.returned, calls.names()
    return run


def _shape_of_one(
    of_two: tuple[int, ...] | None, of_three: tuple[int, ...] | None
) -> tuple[int, ...] | None:
    """The shape for one image, from those for 2 and 3; None where axis 0 is not the batch."""
    if of_two and of_three and of_two == (2, *of_three[1:]) and of_three[0] == 3:
        return of_two[1:]
    return None
