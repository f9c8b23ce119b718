"""The calls of a module's submodules during a forward pass, and what they return."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from torch import Tensor, nn


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
    on_return: Callable[[int, nn.Module, Any], None],
    on_result: Callable[[Any], Any],
) -> Iterator[Calls]:
    """Hooks on a module and all its submodules, for the length of the block.

    Args:
        on_return: called with the number of the call in this forward pass (from 0), the submodule
            and what it returned.
        on_result: called with what the root returned; what it gives takes the place of that.
    """
    calls = Calls()

    def started(path: str, *_: Any) -> None:
        if path == "":  # torch.export runs a forward pass more than once
            calls.returned.clear()
            calls.running.clear()
        calls.running.append(path)

    def ended(path: str, module: nn.Module, _: Any, output: Any) -> Any:
        calls.running.pop()
        if path == "":
            return on_result(output)
        calls.returned.append(path)
        on_return(len(calls.returned) - 1, module, output)
        return None

    handles = []
    try:
        for path, module in root.named_modules():
            handles.append(module.register_forward_pre_hook(partial(started, path)))
            handles.append(module.register_forward_hook(partial(ended, path)))
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
