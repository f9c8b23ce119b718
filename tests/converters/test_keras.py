"""Keras models to ONNX: layers, names and numbers against eager Keras, and what is refused."""

import json
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from nrp_converters.converted_model import ConvertedModel
from nrp_converters.tensorflow.keras_models import convert
from nrp_converters.tensorflow.packages import keras
from nrp_onnx import convert as convert_model
from nrp_onnx.backbone.model import load_backbone
from nrp_onnx.backbone.preprocessing import PRESETS
from nrp_onnx.errors import ModelError, NrpOnnxError, OptionError
from tests.converters import keras_models
from tests.converters.keras_models import SIZE

pytestmark = pytest.mark.tensorflow


def run(model: ConvertedModel, images: np.ndarray) -> dict[str, np.ndarray]:
    session = ort.InferenceSession(
        model.onnx.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, {"input": images}), strict=True))


def images_of(batch: int, size: int = SIZE) -> np.ndarray:
    return np.random.default_rng(batch).uniform(-1, 1, (batch, size, size, 3)).astype(np.float32)


def assert_same(got: np.ndarray, expected: Any, name: str, tolerance: float = 1e-4) -> None:
    """Equal, relative to the layer's own scale."""
    expected = np.asarray(expected)
    assert got.shape == expected.shape, name
    assert np.abs(got - expected).max() <= tolerance * np.abs(expected).max(), name


def branched_by_hand(model: Any, images: np.ndarray) -> dict[str, Any]:
    """The model of `keras_models.branched`, layer by layer in eager Keras."""
    layer, block = model.get_layer, model.get_layer("block")
    found: dict[str, Any] = {}

    def step(name: str, value: Any) -> Any:
        found[name] = value
        return value

    def nested(number: int, x: Any) -> Any:
        for inner in ("inner_bn", "inner_relu", "inner_conv"):
            x = step(f"block/{inner}#{number}", block.get_layer(inner)(x))
        return step(f"block#{number}", x)

    x = step("stem", layer("stem")(images))
    x = step("stem_bn", layer("stem_bn")(x, training=False))
    left = step("shared#1", layer("shared")(x))
    right = nested(1, step("right", layer("right")(x)))
    x = step("sum", left + right)
    x = nested(2, step("shared#2", layer("shared")(x)))
    x = step("both", np.concatenate([step("drop", x), left], axis=-1))
    x = step("tokens", np.reshape(x, (len(images), 64, 12)))
    x = step("pooled", np.mean(x, axis=1))
    step("answer", layer("answer")(x))
    return found


@pytest.fixture(scope="module")
def branched() -> tuple[Any, ConvertedModel]:
    model = keras_models.branched()
    return model, convert(model, preprocessing=PRESETS["tf"])


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_every_layer_equals_eager_keras(branched, batch):
    model, converted = branched
    images = images_of(batch)
    got, expected = run(converted, images), branched_by_hand(model, images)
    assert {layer.name for layer in converted.layers} == set(expected)
    for layer in converted.layers:
        assert_same(got[layer.tensor], expected[layer.name], layer.name)
    assert_same(got["output"], expected["answer"], "output")


def test_layers_come_in_the_order_of_computation(branched):
    _, converted = branched
    names = [layer.name for layer in converted.layers]
    assert [layer.depth for layer in converted.layers] == list(range(len(names)))
    order = ["stem", "stem_bn", "right", "block/inner_conv#1", "block#1", "sum", "shared#2",
             "block/inner_bn#2", "block#2", "drop", "both", "tokens", "pooled", "answer"]  # fmt: skip
    assert [name for name in names if name in order] == order


def test_layer_table_and_outputs(branched):
    _, converted = branched
    table = {layer.name: layer for layer in converted.layers}
    assert (table["stem"].op, table["stem"].shape, table["stem"].layout) == (
        "Conv2D", (8, 8, 6), "NHWC",
    )  # fmt: skip
    assert (table["block#1"].op, table["tokens"].layout) == ("Functional", "NTC")
    assert (table["pooled"].shape, table["pooled"].layout) == ((12,), "NC")
    outputs = converted.onnx.graph.output
    assert [value.name for value in outputs] == ["output", *(x.tensor for x in converted.layers)]
    for value in (converted.onnx.graph.input[0], *outputs):
        assert value.type.tensor_type.shape.dim[0].dim_param == "batch", value.name
    for value, layer in zip(list(outputs)[1:], converted.layers, strict=True):
        sizes = [dim.dim_value for dim in value.type.tensor_type.shape.dim][1:]
        assert tuple(sizes) == layer.shape, layer.name


def test_saved_file_is_valid_and_says_where_it_comes_from(branched, tmp_path):
    model, converted = branched
    path = tmp_path / "branched.onnx"
    converted.save(path)
    onnx.checker.check_model(str(path), full_check=True)
    backbone = load_backbone(path)
    weights = [*model.trainable_weights, *model.non_trainable_weights]
    assert backbone.n_parameters == sum(int(np.prod(weight.shape)) for weight in weights)
    assert backbone.layers == converted.layers
    assert (backbone.input.layout, backbone.input.height, backbone.input.batch) == (
        "NHWC", SIZE, None,
    )  # fmt: skip
    assert backbone.source is not None
    assert backbone.source["framework"] == "keras"
    assert backbone.source["version"] == keras.__version__
    assert backbone.proto.producer_name == "tf2onnx"
    assert b".py" not in path.read_bytes()


def test_sequential_model_equals_its_prediction():
    model = keras_models.sequential()
    converted = convert_model(model, preprocessing="tf")
    images = images_of(3)
    got = run(converted, images)
    assert [layer.name for layer in converted.layers] == [
        "pad", "conv", "bn", "pool", "flat", "answer",
    ]  # fmt: skip
    x = images
    for layer in model.layers:
        x = layer(x)
        assert_same(got[layer.name], x, layer.name)
    assert_same(got["output"], model.predict(images, verbose=0), "output")
    metadata = {entry.key: entry.value for entry in converted.onnx.metadata_props}
    parity = json.loads(metadata["nrp_onnx.parity"])
    assert set(parity["layers"]) == set(got) - {"output"}
    assert parity["max_relative_error"] < 1e-4


def test_training_statistics_and_weights_are_left_alone():
    model = keras_models.branched()
    before = [weight.copy() for weight in model.get_weights()]
    convert(model, preprocessing=PRESETS["tf"])
    assert all(np.array_equal(*pair) for pair in zip(before, model.get_weights(), strict=True))
    # The class's own __call__ is back: a layer can be called as before.
    assert keras.layers.Layer.__call__.__module__.startswith("keras.")


def test_open_image_size_needs_an_example_and_then_works():
    model = keras_models.any_size()
    with pytest.raises(OptionError, match=r"leaves its image size open.*--input-size"):
        convert(model, preprocessing=PRESETS["raw"])
    converted = convert(model, np.zeros((1, 10, 12, 3)), preprocessing=PRESETS["raw"])
    images = np.random.default_rng(0).random((2, 10, 12, 3), np.float32)
    assert_same(run(converted, images)["conv"], model.get_layer("conv")(images), "conv")
    assert converted.layers[0].shape == (8, 10, 4)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (keras_models.two_inputs, ["no single image input", "(None, 8, 8, 3)"]),
        (keras_models.no_image, ["no single image input", "(None, 8)"]),
        (keras_models.bytes_only, ["no single image input", "uint8"]),
        (keras_models.without_onnx, ["ONNX", "BesselJ0"]),
        (keras_models.subclassed, ["subclassed", "keras.Model(x, subclassed(x))"]),
        (lambda: keras.Sequential([keras.layers.Flatten()]), ["keras.Input((H, W, 3))"]),
    ],
)
def test_what_cannot_be_converted_is_said_in_one_line(make, says, capfd):
    with pytest.raises(ModelError) as caught:
        convert(make(), preprocessing=PRESETS["raw"])
    for words in says:
        assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert capfd.readouterr().err == ""


def test_the_layer_that_fails_is_named():
    def fail(_: Any) -> Any:
        raise ValueError("no such luck")

    model = keras_models.sequential()
    model.get_layer("pool").call = fail
    with pytest.raises(NrpOnnxError, match=r"layer pool: .*no such luck"):
        convert(model, preprocessing=PRESETS["raw"])
