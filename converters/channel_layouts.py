"""Where the channels of a PyTorch model's activations are: before or after height and width.

PyTorch's own layers take (batch, channels, height, width), but models such as ConvNeXt and some
Swins permute that inside. The modules that read or make a tensor tell.
"""

from typing import Any

from torch import Tensor, nn

from nrp_onnx.converters.module_calls import tensors_in

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
