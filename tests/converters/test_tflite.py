"""TFLite files to ONNX: float and quantised, against TFLite's interpreter."""

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from PIL import Image

from nrp_converters.request import Request
from nrp_converters.specs import convert_spec, quiet
from nrp_converters.tensorflow.graph import frozen
from nrp_converters.tensorflow.packages import keras, tf, without_stderr
from nrp_onnx.backbone.model import load_backbone
from nrp_onnx.errors import NrpOnnxError
from nrp_onnx.recordings.simulation.stimuli import render
from tests.command_line import nrp_onnx
from tests.converters import keras_models

pytestmark = pytest.mark.tensorflow


def tflite_of(quantised: bool, head: Any = None) -> bytes:
    model = keras_models.sequential()
    if head is not None:
        model = keras.Sequential([keras.Input((16, 16, 3)), head, model])

    @tf.function(input_signature=[tf.TensorSpec([1, 16, 16, 3], tf.float32)])
    def predict(images):
        return model(images, training=False)

    images = np.random.default_rng(0).uniform(-1, 1, (20, 1, 16, 16, 3)).astype(np.float32)
    with quiet(), without_stderr():
        converter = tf.lite.TFLiteConverter.from_concrete_functions(
            [frozen(predict.get_concrete_function())], model
        )
        if quantised:
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
            converter.representative_dataset = lambda: ([image] for image in images)
            converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
            converter.inference_input_type = converter.inference_output_type = tf.int8
        content: bytes = converter.convert()
    return content


def interpret(content: bytes, images: np.ndarray) -> tuple[np.ndarray, float]:
    """The model's answers as real numbers, and the step between two of them (0 for float)."""
    with quiet(), without_stderr():
        interpreter = tf.lite.Interpreter(model_content=content)
        interpreter.allocate_tensors()
    (given,), (made,) = interpreter.get_input_details(), interpreter.get_output_details()
    answers = []
    for image in images:
        if given["dtype"] != np.float32:
            scale, zero = given["quantization"]
            limits = np.iinfo(given["dtype"])
            image = np.clip(np.round(image / scale) + zero, limits.min, limits.max)
        interpreter.set_tensor(given["index"], image[None].astype(given["dtype"]))
        interpreter.invoke()
        answers.append(interpreter.get_tensor(made["index"])[0])
    scale, zero = made["quantization"]
    found = np.stack(answers).astype(np.float64)
    return (scale * (found - zero) if scale else found), scale


def convert(content: bytes, folder: Path) -> tuple[Any, ort.InferenceSession, str]:
    (folder / "model.tflite").write_bytes(content)
    run = nrp_onnx("convert", "tflite:model.tflite", "-o", "model.onnx", cwd=folder)
    assert run.returncode == 0, run.stderr
    session = ort.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
    return load_backbone(folder / "model.onnx"), session, run.stderr


def test_the_head_of_a_float_model_is_seen(tmp_path):
    rescaling = keras.layers.Rescaling(1 / 127.5, offset=-1)
    backbone, _, said = convert(tflite_of(quantised=False, head=rescaling), tmp_path)
    assert "begins with MUL, ADD, made for values 0 to 255" in said
    assert backbone.preprocessing.rescale_factor == 1
    assert backbone.preprocessing.image_mean == (0, 0, 0)


def test_a_float_model_equals_the_interpreter(tmp_path):
    content = tflite_of(quantised=False)
    backbone, session, said = convert(content, tmp_path)
    assert "quantised" not in said
    images = np.random.default_rng(3).uniform(-1, 1, (3, 16, 16, 3)).astype(np.float32)
    (found,) = session.run(["output"], {"input": images})  # three at once: the batch axis is open
    expected, _ = interpret(content, images)
    assert np.allclose(found, expected, atol=1e-5)
    assert backbone.input.batch is None
    assert {layer.op for layer in backbone.layers} >= {"CONV_2D", "MAX_POOL_2D", "SOFTMAX"}


def test_an_int8_model_with_a_scale_for_each_channel(tmp_path):
    content = tflite_of(quantised=True)
    backbone, session, said = convert(content, tmp_path)
    assert "the model is quantised (int32, int8)" in said
    assert backbone.source is not None
    assert backbone.source["dequantised"] is True
    assert backbone.preprocessing is not None
    images = np.random.default_rng(3).uniform(-1, 1, (8, 16, 16, 3)).astype(np.float32)
    (found,) = session.run(["output"], {"input": images})
    expected, step = interpret(content, images)
    assert np.abs(found - expected).max() < 6 * step
    assert np.ptp(found) > 50 * step  # so that the line above says something
    parity = json.loads(
        {entry.key: entry.value for entry in backbone.proto.metadata_props}["nrp_onnx.parity"]
    )
    assert parity["reference"] == "TFLite's float kernels on the dequantised model"
    assert parity["max_relative_error"] < 1e-3


def natural_images(shared: Path, size: int) -> np.ndarray:
    """32 images of a recording and 8 rendered ones, uint8 RGB."""
    with zipfile.ZipFile(shared / "data" / "macaque_v4_210325" / "images.zip") as archive:
        names = sorted(n for n in archive.namelist() if n.endswith((".png", ".jpg", ".bmp")))
        pictures: list[Image.Image] = [
            Image.open(io.BytesIO(archive.read(name))) for name in names[:32]
        ]
    pictures += [render(5, index) for index in range(8)]
    return np.stack([np.asarray(p.convert("RGB").resize((size, size))) for p in pictures])


def test_mobilenet_v2_classifies_like_its_float_original(shared, tmp_path):
    content = (shared / "backbones" / "mobilenet_v2_1.0_224_quant.tflite").read_bytes()
    backbone, session, _ = convert(content, tmp_path)
    pixels = natural_images(shared, 224)
    images = ((pixels.astype(np.float32)) - 128) / 128
    original = ort.InferenceSession(
        shared / "backbones" / "mobilenet_v2_1.0_224.onnx", providers=["CPUExecutionProvider"]
    )
    name = original.get_inputs()[0].name
    agree = like_interpreter = 0
    quantised, _ = interpret(content, images)
    for image, row in zip(images, quantised, strict=True):
        (found,) = session.run(["output"], {"input": image[None]})
        (expected,) = original.run(None, {name: image[None].transpose(0, 3, 1, 2)})[:1]
        agree += int(found.argmax() == expected.argmax())
        like_interpreter += int(found.argmax() == row.argmax())
    print(f"top-1 agreement: {agree} of 40 with the original, {like_interpreter} with TFLite")
    assert agree >= 24
    assert like_interpreter >= 32
    assert backbone.preprocessing is not None
    assert backbone.preprocessing.rescale_factor == 1 / 128
    assert backbone.preprocessing.image_mean == (1.0, 1.0, 1.0)


def test_mobilenet_v1_agrees_with_the_quantised_interpreter(shared, tmp_path):
    content = (shared / "backbones" / "mobilenet_v1_0.25_128_quant.tflite").read_bytes()
    _, session, _ = convert(content, tmp_path)
    images = (natural_images(shared, 128).astype(np.float32) - 128) / 128
    (found,) = session.run(["output"], {"input": images})
    expected, _ = interpret(content, images)
    same = int((found.argmax(1) == expected.argmax(1)).sum())
    print(f"top-1 agreement with TFLite: {same} of {len(images)}; {np.abs(found - expected).max()}")
    assert same >= 30
    assert np.corrcoef(found.ravel(), expected.ravel())[0, 1] > 0.97


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, ["no such model file", "nothing"]),
        (b"just some text", ["no TFLite file", "TFL3"]),
        (b"\x1c\x00\x00\x00TFL3" + bytes(40), ["damaged"]),
    ],
)
def test_bad_files_say_what_to_do(content, says, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if content is not None:
        (tmp_path / "bad.tflite").write_bytes(content)
    with pytest.raises(NrpOnnxError) as caught:
        convert_spec("tflite:bad.tflite", Request())
    assert "\n" not in str(caught.value)
    for words in ("bad.tflite", *says):
        assert words in str(caught.value)
