"""Pillow's antialiased resize, and the cut from the middle, as plain ONNX operators.

Not every engine carries out the antialias of ONNX's Resize: one left it out without a word, and rates
moved by a third of a standard deviation. Matrix products are the same everywhere. The weights of each
axis are computed in the graph from the image's size: those of an output pixel lie in a band, so that
a few output rows at a time are the product of their weights and the few input rows under them.
"""

import numpy as np
import onnx_ir as ir
from onnx_ir.tape import Tape

#: Output rows of a product. Fewer make more nodes; more make products of zeros.
_ROWS = 16
#: Pixels on each side that a filter sees where it does not shrink.
_SUPPORT = {"linear": 1.0, "cubic": 2.0}
_HEIGHT, _WIDTH = 2, 3


def append_resize(
    tape: Tape,
    x: ir.Value,
    mode: str,
    size: tuple[int, int] | int,
    crop: tuple[int, int] | None,
) -> ir.Value:
    """Nodes from pixels (batch, channels, height, width) to those of the wanted size.

    Args:
        x: float32, any height and width.
        mode: ``nearest``, ``linear`` or ``cubic``.
        size: (height, width) to resize to, or the shorter edge; the longer one is then cut down to
            whole pixels, as torchvision does.
        crop: (height, width) that is cut from the middle; needed with a shorter edge. What is cut off
            is never computed.
    """
    both = tape.op("Shape", [x], {"start": _HEIGHT, "end": _WIDTH + 1})
    shorter = tape.op("ReduceMin", [both], {"keepdims": 1})
    for place, axis in enumerate((_HEIGHT, _WIDTH)):
        n = tape.op("Shape", [x], {"start": axis, "end": axis + 1})
        if isinstance(size, int):
            assert crop is not None
            scaled = tape.op("Mul", [n, _constant(tape, [size], np.int64)])
            new, n_out = tape.op("Div", [scaled, shorter]), crop[place]
        else:
            n_out = crop[place] if crop else size[place]
            new = _constant(tape, [size[place]], np.int64)
        margin = tape.op("Sub", [new, _constant(tape, [n_out], np.int64)])
        first = tape.op("Div", [margin, _constant(tape, [2], np.int64)])
        x = _resize_axis(tape, x, axis, mode, n, new, first, n_out)
    if mode == "cubic":  # it overshoots, and Pillow's pixels end at 0 and 255
        x = tape.op("Clip", [x, _constant(tape, 0.0), _constant(tape, 255.0)])
    return x


def _resize_axis(
    tape: Tape,
    x: ir.Value,
    axis: int,
    mode: str,
    n: ir.Value,
    new: ir.Value,
    first: ir.Value,
    n_out: int,
) -> ir.Value:
    """Resize one axis from ``n`` to ``new`` pixels, and keep ``n_out`` of them from ``first`` on."""
    scale = tape.op("Div", [_floats(tape, n), _floats(tape, new)])
    places = tape.op("Add", [_floats(tape, first), _constant(tape, np.arange(n_out) + 0.5)])
    centres = tape.op("Mul", [places, scale])
    if mode == "nearest":
        last = tape.op("Sub", [n, _constant(tape, [1], np.int64)])
        nearest = tape.op("Cast", [tape.op("Floor", [centres])], {"to": ir.DataType.INT64})
        return tape.op("Gather", [x, tape.op("Min", [nearest, last])], {"axis": axis})
    wide = tape.op("Max", [scale, _constant(tape, [1.0])])
    weights = _weights(tape, mode, n, centres, wide, n_out)
    support = tape.op("Mul", [wide, _constant(tape, [_SUPPORT[mode]])])
    n_blocks = -(-n_out // _ROWS)
    edges = np.linspace(0, n_out, n_blocks + 1).astype(np.int64)
    # The input pixels under the first and the last output pixel of each block.
    from_first = tape.op("Gather", [centres, _constant(tape, edges[:-1], np.int64)])
    to_last = tape.op("Gather", [centres, _constant(tape, edges[1:] - 1, np.int64)])
    start = tape.op("Floor", [tape.op("Sub", [from_first, support])])
    start = tape.op("Max", [start, _constant(tape, [0.0])])
    end = tape.op("Ceil", [tape.op("Add", [to_last, support])])
    start, end = (tape.op("Cast", [v], {"to": ir.DataType.INT64}) for v in (start, end))
    end = tape.op("Min", [end, n])
    blocks = []
    for block in range(n_blocks):
        of_block = _constant(tape, [block], np.int64)
        begins, ends = (tape.op("Gather", [v, of_block]) for v in (start, end))
        rows = [_constant(tape, [edge], np.int64) for edge in edges[block : block + 2]]
        under = tape.op(
            "Slice",
            [
                weights,
                tape.op("Concat", [rows[0], begins], {"axis": 0}),
                tape.op("Concat", [rows[1], ends], {"axis": 0}),
                _constant(tape, [0, 1], np.int64),
            ],
        )
        pixels = tape.op("Slice", [x, begins, ends, _constant(tape, [axis], np.int64)])
        if axis == _HEIGHT:
            blocks.append(tape.op("MatMul", [under, pixels]))
        else:
            across = tape.op("Transpose", [under], {"perm": [1, 0]})
            blocks.append(tape.op("MatMul", [pixels, across]))
    return tape.op("Concat", blocks, {"axis": axis}) if n_blocks > 1 else blocks[0]


def _weights(
    tape: Tape, mode: str, n: ir.Value, centres: ir.Value, wide: ir.Value, n_out: int
) -> ir.Value:
    """How much each input pixel counts for each output pixel, (n_out, n); rows sum to 1.

    Args:
        centres: of the output pixels, in input pixels, (n_out,).
        wide: how much wider than its own pixels the filter is, where it shrinks.
    """
    zero, one = (_constant(tape, value, np.int64) for value in (0, 1))
    counted = tape.op("Range", [zero, tape.op("Squeeze", [n]), one])
    pixels = tape.op("Add", [_floats(tape, counted), _constant(tape, 0.5)])
    rows = tape.op("Reshape", [centres, _constant(tape, [n_out, 1], np.int64)])
    distance = tape.op("Abs", [tape.op("Div", [tape.op("Sub", [pixels, rows]), wide])])
    if mode == "linear":
        found = tape.op("Relu", [tape.op("Sub", [_constant(tape, 1.0), distance])])
    else:
        found = _cubic(tape, tape.op("Min", [distance, _constant(tape, 2.0)]))
    total = tape.op("ReduceSum", [found, _constant(tape, [1], np.int64)], {"keepdims": 1})
    return tape.op("Div", [found, total])


def _cubic(tape: Tape, t: ir.Value) -> ir.Value:
    """Keys' cubic with a = -0.5, as Pillow's bicubic, of distances from 0 to 2."""

    def polynomial(*coefficients: float) -> ir.Value:
        value = _constant(tape, coefficients[0])
        for coefficient in coefficients[1:]:
            product = tape.op("Mul", [value, t])
            value = tape.op("Add", [product, _constant(tape, coefficient)])
        return value

    near, far = polynomial(1.5, -2.5, 0.0, 1.0), polynomial(-0.5, 2.5, -4.0, 2.0)
    return tape.op("Where", [tape.op("Less", [t, _constant(tape, 1.0)]), near, far])


def _floats(tape: Tape, value: ir.Value) -> ir.Value:
    return tape.op("Cast", [value], {"to": ir.DataType.FLOAT})


def _constant(tape: Tape, value: object, dtype: type = np.float32) -> ir.Value:
    return tape.op("Constant", [], {"value": ir.tensor(np.array(value, dtype))})
