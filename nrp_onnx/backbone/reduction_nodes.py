"""The ONNX nodes that reduce an exposed layer inside the graph.

The n features of an image get random signs and a random order, and are dealt into D buckets of
m = ceil(n / D) each; a bucket's sum is a number of the sketch. So S has one entry of +-1 in every
column, and m in every row (Charikar, Chen & Farach-Colton 2002, with buckets of equal size).

For any two vectors, E<Sx, Sy> = <x, y>: the signs are independent, so that products of different
features cancel in the mean. Two features share a bucket with probability
p = (m - 1) / (m D - 1) <= 1 / D, and only those that do disturb:

    Var<Sx, Sy> = p sum_{i != j} (x_i^2 y_j^2 + x_i y_i x_j y_j) <= (|x|^2 |y|^2 + <x, y>^2) / D.

So an inner product is off by at most sqrt(2 / D) |x| |y| in standard deviations, and by Chebyshev's
inequality by more than sqrt(2 / (delta D)) |x| |y| with a probability of at most delta. A linear
predictor or a kernel sees the layer through its inner products alone.
"""

from itertools import pairwise

import numpy as np
import onnx_ir as ir
from onnx_ir.tape import Tape

from nrp_onnx.backbone.layers import Layer
from nrp_onnx.backbone.reductions import Reduction, channels_first

#: Of every sketch. It is stored with the activations and is part of their fingerprint.
SEED = 0


def sketch_plan(n_features: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Which feature goes where, and with which sign.

    The numbers are read from PCG64 itself, whose stream NumPy keeps from version to version.

    Returns:
        ``order``, int64 (m * size,): place j of bucket b takes feature order[j * size + b];
        ``signs``, float32 of the same shape: +1, -1, or 0 where the last places stay empty.
    """
    draws = np.random.PCG64(SEED).random_raw(n_features)
    n_places = -(-n_features // size) * size
    order = np.zeros(n_places, np.int64)
    order[:n_features] = np.argsort(draws, kind="stable")
    signs = np.zeros(n_places, np.float32)
    # The order hangs on the high bits, which decide every comparison; the sign on the lowest.
    signs[:n_features] = np.where(draws[order[:n_features]] & 1, 1, -1)
    return order, signs


def append_reduction(tape: Tape, value: ir.Value, layer: Layer, reduction: Reduction) -> ir.Value:
    """Nodes from a layer to its reduced activations: float32, shape (batch, features)."""
    value = tape.op("Cast", [value], {"to": ir.DataType.FLOAT})
    match reduction.kind:
        case "mean":
            axes = {"NCHW": [2, 3], "NHWC": [1, 2], "NTC": [1]}[str(layer.layout)]
            value = tape.op("ReduceMean", [value, _numbers(tape, axes)], {"keepdims": 0})
        case "avgpool":
            value = _average_pool(tape, value, layer, reduction.k)
        case "cls":
            first = [_numbers(tape, numbers) for numbers in ([0], [1], [1])]
            value = tape.op("Slice", [value, *first])
    value = tape.op("Flatten", [value], {"axis": 1})
    match reduction.kind:
        case "sketch":
            value = _count_sketch(tape, value, layer, reduction.k)
        case "pca":
            assert reduction.components is not None
            centred = tape.op("Sub", [value, _constant(tape, reduction.components.mean)])
            directions = _constant(tape, reduction.components.directions)
            value = tape.op("MatMul", [centred, directions])
    return value


def _constant(tape: Tape, array: np.ndarray) -> ir.Value:
    return tape.op("Constant", [], {"value": ir.tensor(array)})


def _numbers(tape: Tape, numbers: list[int]) -> ir.Value:
    return tape.op("Constant", [], {"value_ints": numbers})


def _count_sketch(tape: Tape, value: ir.Value, layer: Layer, size: int) -> ir.Value:
    """Permute, sign, reshape, sum: (batch, features) to (batch, size)."""
    assert layer.n_features is not None
    order, signs = sketch_plan(layer.n_features, size)
    value = tape.op("Gather", [value, _constant(tape, order)], {"axis": 1})
    value = tape.op("Mul", [value, _constant(tape, signs)])
    value = tape.op("Reshape", [value, _numbers(tape, [-1, len(order) // size, size])])
    return tape.op("ReduceSum", [value, _numbers(tape, [1])], {"keepdims": 0})


def _average_pool(tape: Tape, value: ir.Value, layer: Layer, k: int) -> ir.Value:
    """Adaptive average pooling to k x k, as in PyTorch; an axis of k or less is left alone."""
    if layer.layout == "NHWC":
        value = tape.op("Transpose", [value], {"perm": [0, 3, 1, 2]})
    grid = layer.grid
    if layer.layout == "NTC":
        assert grid is not None, "reduction_for refuses tokens without a grid"
        if grid.extra:
            cut = [_numbers(tape, [n]) for n in (grid.extra, np.iinfo(np.int64).max, 1)]
            value = tape.op("Slice", [value, *cut])
        value = tape.op("Transpose", [value], {"perm": [0, 2, 1]})
        shape = [0, grid.channels, grid.height, grid.width]
        value = tape.op("Reshape", [value, _numbers(tape, shape)])
        height, width = grid.height, grid.width
    else:
        _, height, width = channels_first(layer)
    even = [_even_windows(size, k) for size in (height, width)]
    if None not in even:
        kernel, strides = zip(*even, strict=True)
        return tape.op("AveragePool", [value], {"kernel_shape": kernel, "strides": strides})
    # Windows of unequal size are two products with averaging matrices: P_h X P_w^T.
    rows = _constant(tape, _windows(height, k))
    columns = _constant(tape, _windows(width, k).T.copy())
    return tape.op("MatMul", [tape.op("MatMul", [rows, value]), columns])


def _even_windows(size: int, k: int) -> tuple[int, int] | None:
    """Width and step of the windows, where all have one width and are one step apart.

    So it is where k divides the size, and for the 7 x 7 maps that many networks end with at k = 2.
    """
    windows = [np.flatnonzero(row) for row in _windows(size, k)]
    widths = {len(window) for window in windows}
    steps = {int(b[0] - a[0]) for a, b in pairwise(windows)} or {size}
    return (widths.pop(), steps.pop()) if len(widths) == len(steps) == 1 else None


def _windows(size: int, k: int) -> np.ndarray:
    """Averaging matrix (min(k, size), size): row i covers floor(i size / k) to ceil((i+1) size / k)."""
    k = min(k, size)
    matrix = np.zeros((k, size), np.float32)
    for row in range(k):
        start, stop = row * size // k, -(-(row + 1) * size // k)
        matrix[row, start:stop] = 1 / (stop - start)
    return matrix
