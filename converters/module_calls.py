"""The calls of a module's submodules during a forward pass, and what they return."""

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from torch import Tensor, nn

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
        for path, module in root.named_modules():
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
