"""The preprocessing as ONNX nodes: the only implementation, in extraction and in what is shipped."""

import numpy as np
import onnx_ir as ir
from onnx_ir.tape import Tape

from nrp_onnx.backbone.preprocessing import LUMINANCE, RESAMPLE, Preprocessing
from nrp_onnx.backbone.resize_nodes import append_resize
from nrp_onnx.errors import OptionError

#: Of the screen around an image: Pillow's "gray".
_GREY = 128.0
_DTYPES = {"float32": ir.DataType.FLOAT, "float16": ir.DataType.FLOAT16}


def append_preprocessing(tape: Tape, images: ir.Value, spec: Preprocessing) -> ir.Value:
    """Nodes from images to the backbone's input.

    Args:
        images: uint8 RGB, shape (batch, height, width, 3), values 0 to 255, any height and width.
        spec: with size, layout and dtype filled in.

    Returns:
        A value of the spec's dtype, layout and size.
    """
    if spec.layout == "NHWC":
        x = tape.op("Cast", [images], {"to": ir.DataType.FLOAT})
        # No Transpose: ONNX Runtime would push it through Resize, to meet the one at the end, and not
        # every execution provider resizes channels that come last.
        x = tape.op("Einsum", [x], {"equation": "nhwc->nchw"})
    else:  # bytes are a quarter of the work
        x = tape.op("Transpose", [images], {"perm": [0, 3, 1, 2]})
        x = tape.op("Cast", [x], {"to": ir.DataType.FLOAT})
    n_channels = 1 if spec.channel_order == "L" else 3
    if n_channels == 1:
        shares = np.array(LUMINANCE, np.float32).reshape(1, 3, 1, 1)
        x = tape.op("Conv", [x, _constant(tape, shares)])
    if spec.visual_degrees_ratio != 1:
        x = _place_on_screen(tape, x, spec.visual_degrees_ratio)
    assert spec.size is not None
    x = append_resize(tape, x, RESAMPLE[spec.resample], spec.size, spec.crop_size)
    _tell_shape(x, images, spec)
    # ((v * rescale) - mean) / std as one product and one sum: per channel, in the order R, G, B.
    mean, std = np.array(spec.image_mean, np.float64), np.array(spec.image_std, np.float64)
    if n_channels == 1:
        mean, std = np.dot(LUMINANCE, mean), np.dot(LUMINANCE, std)
    scale = np.float32(spec.rescale_factor / std).reshape(1, n_channels, 1, 1)
    offset = np.float32(-mean / std).reshape(1, n_channels, 1, 1)
    if np.any(scale != 1):
        x = tape.op("Mul", [x, _constant(tape, scale)])
    if np.any(offset != 0):
        x = tape.op("Add", [x, _constant(tape, offset)])
    if spec.channel_order == "BGR":
        x = tape.op("Gather", [x, _constant(tape, np.array([2, 1, 0]))], {"axis": 1})
    if spec.layout == "NHWC":
        x = tape.op("Transpose", [x], {"perm": [0, 2, 3, 1]})
    if spec.dtype == "float16":
        x = tape.op("Cast", [x], {"to": _DTYPES["float16"]})
    return x


def check_fits(
    spec: Preprocessing,
    height: int | None,
    width: int | None,
    layout: str,
    dtype: str,
    where: object,
    channels: int = 3,
) -> None:
    """Refuse a spec whose result is not what the backbone takes.

    Raises:
        OptionError: if the size is open, or size, layout, dtype or the number of channels differ from
            the model's input.
    """
    if channels == 3 and spec.channel_order == "L":
        raise OptionError(
            "the preprocessing gives one channel and the model takes three",
            where=where,
            expected="channel_order RGB or BGR",
            found="L",
        )
    if spec.size is None:
        raise OptionError(
            "the model leaves its image size open and the preprocessing names none",
            where=where,
            expected='a size, such as {"size": {"height": 224, "width": 224}}',
            fix="Give a JSON file with --preprocess.",
        )
    if isinstance(spec.size, int) and spec.crop_size is None:
        raise OptionError(
            "the preprocessing gives images of unequal shape",
            where=where,
            expected="a crop_size beside shortest_edge",
            found=spec.size,
        )
    given = spec.crop_size or spec.size
    assert not isinstance(given, int)
    if any(
        want is not None and want != have for want, have in zip((height, width), given, strict=True)
    ):
        raise OptionError(
            "the preprocessing does not give the model's image size",
            where=where,
            expected=f"{height} x {width}",
            found=" x ".join(map(str, given)),
        )
    if (spec.layout, spec.dtype) != (layout, dtype):
        raise OptionError(
            "the preprocessing does not give what the model takes",
            where=where,
            expected=f"{layout} {dtype}",
            found=f"{spec.layout} {spec.dtype}",
        )


def _tell_shape(x: ir.Value, images: ir.Value, spec: Preprocessing) -> None:
    """Say what shape pixels have now, which shape inference does not find.

    Where ONNX Runtime cannot tell that two tensors are of one shape, it does not compute one in the
    place of the other: each sum of two paths of a ResNet would cost a copy.
    """
    size = spec.crop_size or spec.size
    if images.shape is not None and not isinstance(size, int | None):
        n_channels = 1 if spec.channel_order == "L" else 3
        x.shape, x.type = (
            ir.Shape([images.shape[0], n_channels, *size]),
            ir.TensorType(ir.DataType.FLOAT),
        )


def _constant(tape: Tape, array: np.ndarray) -> ir.Value:
    return tape.op("Constant", [], {"value": ir.tensor(array)})


def _place_on_screen(tape: Tape, x: ir.Value, ratio: float) -> ir.Value:
    """Make an image ``ratio`` times as large: with a grey margin on all sides, or by cutting them off.

    Sizes and margins are rounded as Brain-Score's place_on_screen rounds them: to the nearest pixel,
    halves to the even one.
    """

    def rounded(value: ir.Value) -> ir.Value:
        return tape.op("Cast", [tape.op("Round", [value])], {"to": ir.DataType.INT64})

    def times(value: ir.Value, factor: float) -> ir.Value:
        # In double precision, as in NumPy: in float32 other products would end in a half.
        number = tape.op("Cast", [value], {"to": ir.DataType.DOUBLE})
        return tape.op("Mul", [number, _constant(tape, np.array([factor]))])

    size = tape.op("Shape", [x], {"start": 2, "end": 4})
    at_least_one = _constant(tape, np.array([1], np.int64))
    screen = tape.op("Max", [rounded(times(size, ratio)), at_least_one])
    larger, smaller = (screen, size) if ratio > 1 else (size, screen)
    margin = tape.op("Sub", [larger, smaller])
    before = rounded(times(margin, 0.5))
    if ratio < 1:
        end = tape.op("Add", [before, screen])
        return tape.op("Slice", [x, before, end, _constant(tape, np.array([2, 3], np.int64))])
    none = _constant(tape, np.array([0, 0], np.int64))
    after = tape.op("Sub", [margin, before])
    pads = tape.op("Concat", [none, before, none, after], {"axis": 0})
    return tape.op("Pad", [x, pads, _constant(tape, np.array(_GREY, np.float32))])
