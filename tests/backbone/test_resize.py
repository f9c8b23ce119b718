"""The resize in the graph against Pillow, at sizes below, at and over that of the input."""

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from onnx.reference import ReferenceEvaluator
from onnx_ir.tape import Tape
from PIL import Image

from nrp_onnx.backbone.resize_nodes import append_resize

MODES = {
    "nearest": Image.Resampling.NEAREST,
    "linear": Image.Resampling.BILINEAR,
    "cubic": Image.Resampling.BICUBIC,
}


def graph(
    mode: str, size: tuple[int, int] | int, crop: tuple[int, int] | None = None
) -> onnx.ModelProto:
    x = ir.Value(
        name="x", shape=ir.Shape(["b", 3, "h", "w"]), type=ir.TensorType(ir.DataType.FLOAT)
    )
    made = ir.Graph([x], [], nodes=[], opset_imports={"": 18}, name="resize")
    tape = Tape()
    y = append_resize(tape, x, mode, size, crop)
    y.name, y.type, y.shape = "y", x.type, ir.Shape(["b", 3, *(crop or size)])  # type: ignore[misc]
    made.extend(list(tape.nodes))
    made.outputs.append(y)
    proto = ir.to_proto(ir.Model(made, ir_version=8))
    onnx.checker.check_model(proto, full_check=True)
    return proto


def picture(height: int, width: int) -> np.ndarray:
    rng = np.random.default_rng(height + width)
    return rng.integers(0, 256, (height, width, 3), dtype=np.uint8)


def as_input(image: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(image.transpose(2, 0, 1)[None]).astype(np.float32)


@pytest.mark.parametrize("mode", list(MODES))
@pytest.mark.parametrize("shape", [(64, 48), (1, 1), (3, 200), (100, 80), (300, 301), (900, 1200)])
def test_pixels_are_those_of_pillow_within_a_grey_level(mode: str, shape: tuple[int, int]) -> None:
    image = picture(*shape)
    session = ort.InferenceSession(graph(mode, (64, 48)).SerializeToString())
    found = session.run(None, {"x": as_input(image)})[0]
    expected = np.asarray(Image.fromarray(image).resize((48, 64), MODES[mode]))
    # Pillow rounds after each axis, and cuts off there what a cubic overshoots.
    bound = {"nearest": 0.0, "linear": 1.0, "cubic": 25.0}[mode]
    apart = np.abs(found - as_input(expected))
    assert apart.max() <= bound
    assert np.median(apart) <= 0.5


def test_one_graph_takes_images_of_many_sizes_and_batches() -> None:
    session = ort.InferenceSession(graph("linear", (32, 32)).SerializeToString())
    for shape in ((20, 20), (32, 32), (50, 90)):
        image = as_input(picture(*shape))
        alone = session.run(None, {"x": image})[0]
        twice = session.run(None, {"x": np.repeat(image, 2, axis=0)})[0]
        np.testing.assert_allclose(twice, np.repeat(alone, 2, axis=0), atol=1e-4)


@pytest.mark.parametrize("shape", [(300, 400), (400, 300), (256, 256), (90, 70)])
def test_a_shorter_edge_and_a_cut_are_those_of_pillow(shape: tuple[int, int]) -> None:
    image = picture(*shape)
    session = ort.InferenceSession(graph("linear", 64, (56, 56)).SerializeToString())
    found = session.run(None, {"x": as_input(image)})[0]
    height, width = (side * 64 // min(shape) for side in shape)
    resized = Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR)
    top, left = (height - 56) // 2, (width - 56) // 2
    expected = np.asarray(resized.crop((left, top, left + 56, top + 56)))
    assert np.abs(found - as_input(expected)).max() <= 1.0


def test_the_reference_evaluator_of_onnx_gives_the_same_pixels() -> None:
    model = graph("cubic", 24, (20, 20))
    image = as_input(picture(30, 41))
    (found,) = (np.asarray(y) for y in ReferenceEvaluator(model).run(None, {"x": image}))
    expected = ort.InferenceSession(model.SerializeToString()).run(None, {"x": image})[0]
    np.testing.assert_allclose(found, expected, atol=1e-3)
