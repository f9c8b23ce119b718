"""Reductions that the feature graph appends to an exposed layer, so that less leaves the session."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import onnx_ir as ir
from onnx_ir.tape import Tape

from nrp_onnx.backbone.layer_table import Layer
from nrp_onnx.errors import OptionError

#: What ``auto`` tries, from the fullest to the smallest.
LADDER = ("none", "avgpool:7", "avgpool:4", "avgpool:2", "mean")

#: ``auto`` takes the fullest reduction whose activations fit in this many bytes for all stimuli.
AUTO_BYTES = 512 * 2**20


@dataclass(frozen=True)
class Reduction:
    """``none``, ``avgpool`` to a k x k map, or ``mean`` over positions or tokens."""

    kind: Literal["none", "avgpool", "mean"]
    k: int = 0

    def __str__(self) -> str:
        return f"avgpool:{self.k}" if self.kind == "avgpool" else self.kind

    def shape(self, layer: Layer) -> tuple[int, ...]:
        """The shape of one reduced image: channels first for maps, (channels,) for a mean."""
        assert layer.shape is not None
        if self.kind == "none" or len(layer.shape) == 1:
            return layer.shape
        channels, *positions = _channels_first(layer)
        if self.kind == "mean":
            return (channels,)
        return (channels, *(min(self.k, size) for size in positions))

    def layout(self, layer: Layer) -> str | None:
        """The layout of what the reduction returns."""
        if self.kind == "avgpool" and layer.layout == "NHWC":
            return "NCHW"
        return "NC" if self.kind == "mean" else layer.layout


def read_reduction(choice: str) -> Reduction:
    """The reduction that ``--reduce`` names.

    Raises:
        OptionError: if there is none of that name.
    """
    match choice.split(":"):
        case ["none"]:
            return Reduction("none")
        case ["mean"]:
            return Reduction("mean")
        case ["avgpool", k] if k.isdecimal() and int(k) > 0:
            return Reduction("avgpool", int(k))
    raise OptionError(
        "no such reduction",
        where="--reduce",
        expected="auto, none, avgpool:K (K a positive number) or mean",
        found=repr(choice),
    )


def reduction_for(layer: Layer, reduction: Reduction, *, asked: bool) -> Reduction:
    """The reduction as it fits a layer: vectors stay as they are, and tokens are averaged.

    Raises:
        OptionError: if the user asked to pool tokens to a map, which they are not.
    """
    if layer.layout == "NTC" and reduction.kind == "avgpool":
        if asked:
            raise OptionError(
                f"the layer {layer.name} has tokens, not a map",
                where="--reduce",
                expected="none or mean",
                found=reduction,
            )
        return Reduction("mean")
    return Reduction("none") if layer.layout == "NC" else reduction


def auto_reduction(layers: list[Layer], n_images: int) -> Reduction:
    """The fullest reduction of `LADDER` that keeps all layers of all images within `AUTO_BYTES`."""
    for name in LADDER:
        reduction = read_reduction(name)
        features = sum(
            int(np.prod(reduction_for(layer, reduction, asked=False).shape(layer)))
            for layer in layers
        )
        if features * 4 * n_images <= AUTO_BYTES:
            break
    return reduction


def append_reduction(tape: Tape, value: ir.Value, layer: Layer, reduction: Reduction) -> ir.Value:
    """Nodes from a layer to its reduced activations: float32, shape (batch, features)."""
    value = tape.op("Cast", [value], {"to": ir.DataType.FLOAT})
    if reduction.kind == "mean":
        axes = {"NCHW": [2, 3], "NHWC": [1, 2], "NTC": [1]}[str(layer.layout)]
        axes_value = tape.op("Constant", [], {"value_ints": axes})
        value = tape.op("ReduceMean", [value, axes_value], {"keepdims": 0})
    elif reduction.kind == "avgpool":
        if layer.layout == "NHWC":
            value = tape.op("Transpose", [value], {"perm": [0, 3, 1, 2]})
        _, height, width = _channels_first(layer)
        value = _average_pool(tape, value, height, width, reduction.k)
    return tape.op("Flatten", [value], {"axis": 1})


def _channels_first(layer: Layer) -> tuple[int, ...]:
    assert layer.shape is not None
    if layer.layout in ("NHWC", "NTC"):
        return (layer.shape[-1], *layer.shape[:-1])
    return layer.shape


def _average_pool(tape: Tape, value: ir.Value, height: int, width: int, k: int) -> ir.Value:
    """Adaptive average pooling to k x k, as in PyTorch; an axis of k or less is left alone."""
    if all(size <= k or size % k == 0 for size in (height, width)):
        kernel = [max(size // k, 1) for size in (height, width)]
        return tape.op("AveragePool", [value], {"kernel_shape": kernel, "strides": kernel})
    # Windows of unequal size are two products with averaging matrices: P_h X P_w^T.
    rows = tape.op("Constant", [], {"value": ir.tensor(_windows(height, k))})
    columns = tape.op("Constant", [], {"value": ir.tensor(_windows(width, k).T.copy())})
    return tape.op("MatMul", [tape.op("MatMul", [rows, value]), columns])


def _windows(size: int, k: int) -> np.ndarray:
    """Averaging matrix (min(k, size), size): row i covers floor(i size / k) to ceil((i+1) size / k)."""
    k = min(k, size)
    matrix = np.zeros((k, size), np.float32)
    for row in range(k):
        start, stop = row * size // k, -(-(row + 1) * size // k)
        matrix[row, start:stop] = 1 / (stop - start)
    return matrix
