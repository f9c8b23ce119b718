"""The layers of a torch.nn.Module: its calls, their names, their channel layouts.

PyTorch's own layers take (batch, channels, height, width), but models such as ConvNeXt and some
Swins permute that inside. The modules that read or make a tensor tell.
"""

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from nrp_converters.torch.wrapped import (
    is_compiled,
    kind_of,
    path_of,
    refuse_batch_statistics,
)
from nrp_onnx.backbone.layers import Layer, guess_layout
from nrp_onnx.errors import ModelError

#: Called with the number of the call in this forward pass (from 0), the submodule, the arguments
#: that it was called with, and what it returned.
OnReturn = Callable[[int, nn.Module, Any, Any], None]


@dataclass
class Calls:
    """What has happened in the current forward pass.

    Attributes:
        returned: paths of the submodules in the order in which their forwards returned.
        running: paths of the modules whose forwards have begun and not returned, outermost first;
            after an exception, the last is the one that raised it.
    """

    returned: list[str] = field(default_factory=list)
    running: list[str] = field(default_factory=list)

    def names(self) -> list[str]:
        """A name for each call: its path, with #1, #2, ... where there is more than one of it."""
        total, so_far = Counter(self.returned), Counter[str]()
        names = []
        for path in self.returned:
            so_far[path] += 1
            names.append(path if total[path] == 1 else f"{path}#{so_far[path]}")
        return names


@contextmanager
def watched(
    root: nn.Module,
    on_return: OnReturn,
    on_result: Callable[[Any], Any],
) -> Iterator[Calls]:
    """Hooks on a module and all its submodules, for the length of the block.

    Args:
        on_return: called after each call of a submodule.
        on_result: called with what the root returned; what it gives takes the place of that.
    """
    calls = Calls()

    def started(path: str, *_: Any) -> None:
        if path == "":  # torch.export runs a forward pass more than once
            calls.returned.clear()
            calls.running.clear()
        calls.running.append(path)

    def ended(path: str, module: nn.Module, given: Any, named: Any, output: Any) -> Any:
        calls.running.pop()
        if path == "":
            return on_result(output)
        calls.returned.append(path)
        on_return(len(calls.returned) - 1, module, (*given, *named.values()), output)
        return None

    handles = []
    try:
        for place, module in root.named_modules():
            if is_compiled(module):
                continue  # what it has compiled is hooked, under its path
            path = path_of(place)
            handles.append(module.register_forward_pre_hook(partial(started, path)))
            handles.append(module.register_forward_hook(partial(ended, path), with_kwargs=True))
        yield calls
    finally:
        for handle in handles:
            handle.remove()


def tensors_in(output: Any) -> list[Tensor]:
    """The floating-point tensors in what a module returned: one, or nested in tuples and dicts."""
    if isinstance(output, Tensor):
        return [output] if output.is_floating_point() else []
    if isinstance(output, Mapping):
        output = output.values()
    elif not isinstance(output, tuple | list):
        return []
    return [tensor for item in output for tensor in tensors_in(item)]


def main_tensor(output: Any) -> Tensor | None:
    """The floating-point tensor that a module's output is about, or None.

    That is the only one there is or, in a tuple or a dataclass such as transformers' ``ModelOutput``,
    the one that comes first: attention weights, pooled values and the like follow it.
    """
    tensors = tensors_in(output)
    if len(tensors) == 1:
        return tensors[0]
    if isinstance(output, Mapping) and dataclasses.is_dataclass(output):
        output = tuple(output.values())
    first = isinstance(output, tuple) and len(tensors) > 1 and output[0] is tensors[0]
    return tensors[0] if first else None


_CHANNELS_FIRST = (
    nn.Conv2d,
    nn.ConvTranspose2d,
    nn.BatchNorm2d,
    nn.InstanceNorm2d,
    nn.MaxPool2d,
    nn.AvgPool2d,
    nn.AdaptiveAvgPool2d,
    nn.AdaptiveMaxPool2d,
    nn.PixelShuffle,
    nn.PixelUnshuffle,
    nn.Upsample,
)
_AXES = 4


class ChannelLayouts:
    """What one forward pass says about the layout of its rank-4 tensors.

    Tensors are told apart by identity and kept until the pass is over, so that no two have the same.
    """

    def __init__(self) -> None:
        self._outputs: list[Tensor | None] = []
        self._made: dict[int, str] = {}
        self._read: dict[int, str] = {}
        self._passed: dict[int, str] = {}
        self._kept: list[Tensor] = []

    def add(self, module: nn.Module, given: Any, output: Tensor | None) -> None:
        """Take note of one call: the module, what it was given, and its main tensor."""
        self._outputs.append(output)
        source = next((x for x in tensors_in(given) if x.ndim == _AXES), None)
        self._kept += [x for x in (source, output) if x is not None]
        if output is None or output.ndim != _AXES:
            return
        layout = _layout_of(module, output)
        if layout is not None:
            self._made[id(output)] = layout
            if source is not None:
                self._read.setdefault(id(source), layout)
        elif source is not None and _keeps_layout(module) and source.shape == output.shape:
            passed = self._of(source)
            if passed is not None:
                self._passed[id(output)] = passed

    def found(self) -> list[str | None]:
        """For each call NCHW or NHWC, or None where nothing tells."""
        return [None if output is None else self._of(output) for output in self._outputs]

    def _of(self, tensor: Tensor) -> str | None:
        """What made a tensor is believed first, then what read it, then what it was made from."""
        tellers = (self._made, self._read, self._passed)
        return next((told[id(tensor)] for told in tellers if id(tensor) in told), None)


def _layout_of(module: nn.Module, output: Tensor) -> str | None:
    """The layout of a rank-4 output of a module whose kind fixes it, and of what it was given."""
    if isinstance(module, _CHANNELS_FIRST):
        return "NCHW"
    if isinstance(module, nn.Linear):
        return "NHWC"
    if isinstance(module, nn.LayerNorm) and len(module.normalized_shape) == 1:
        if type(module).forward is nn.LayerNorm.forward:
            return "NHWC"
        # A subclass with a forward of its own may permute; the channels are where their number is.
        (channels,) = module.normalized_shape
        ends = (output.shape[1] == channels, output.shape[-1] == channels)
        return {(True, False): "NCHW", (False, True): "NHWC"}.get(ends)
    return None


def _keeps_layout(module: nn.Module) -> bool:
    """Whether a module works on each number alone, if it does not change the shape: activations,
    dropout, identity. A module with parts or weights of its own may move numbers about."""
    return not any(True for _ in module.children()) and not any(True for _ in module.parameters())


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
        ModelError: if it does not run, depends on the batch size, has a batch norm without running
            statistics, or has no layers.
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
        refuse_batch_statistics(calls.returned[-1], part, type(module).__name__)
        run.ops.append(kind_of(part))
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
        except ModelError:
            raise
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
