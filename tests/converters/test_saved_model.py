"""SavedModel folders to ONNX: the graph's tensors under their ops' names."""

import numpy as np
import onnxruntime as ort
import pytest

from nrp_converters.request import Request
from nrp_converters.specs import convert_spec
from nrp_converters.tensorflow.packages import keras, tf
from nrp_onnx.backbone.model import load_backbone
from nrp_onnx.errors import NrpOnnxError
from tests.command_line import assert_user_error, nrp_onnx
from tests.converters import keras_models

pytestmark = pytest.mark.tensorflow


class Small(tf.Module):  # type: ignore[misc]
    """A convolution, a batch of sums and a softmax, written in TensorFlow."""

    def __init__(self) -> None:
        super().__init__()
        rng = np.random.default_rng(0)
        self.kernel = tf.Variable(rng.standard_normal((3, 3, 3, 4)).astype(np.float32))
        self.dense = tf.Variable(rng.standard_normal((4, 5)).astype(np.float32))

    @tf.function(input_signature=[tf.TensorSpec([None, None, None, 3], name="image")])
    def __call__(self, image):
        x = tf.nn.conv2d(image, self.kernel, 2, "SAME", name="first")
        x = tf.nn.relu(x, name="rectified")
        x = tf.reduce_mean(x, axis=[1, 2], name="pooled")
        return {"answer": tf.nn.softmax(tf.matmul(x, self.dense, name="scores"), name="answer")}

    @tf.function(input_signature=[tf.TensorSpec([None, 8, 8, 3])] * 2)
    def of_two(self, one, two):
        return one + two


@pytest.fixture(scope="module")
def small() -> Small:
    return Small()


def test_layers_equal_tensorflow(small, tmp_path):
    tf.saved_model.save(small, str(tmp_path / "small"), signatures=small.__call__)
    run = nrp_onnx("convert", "saved_model:small", "--input-size", "12x10", "--preprocess", "tf",
                   "-o", "small.onnx", cwd=tmp_path)  # fmt: skip
    assert run.returncode == 0, run.stderr
    assert run.stderr == ""
    backbone = load_backbone(tmp_path / "small.onnx")
    table = {layer.name: layer for layer in backbone.layers}
    assert list(table) == ["first", "rectified", "pooled", "scores", "answer"]
    assert (table["first"].op, table["first"].shape, table["first"].layout) == (
        "Conv2D", (6, 5, 4), "NHWC",
    )  # fmt: skip
    assert backbone.n_parameters == 3 * 3 * 3 * 4 + 4 * 5
    images = np.random.default_rng(1).uniform(-1, 1, (3, 12, 10, 3)).astype(np.float32)
    session = ort.InferenceSession(tmp_path / "small.onnx", providers=["CPUExecutionProvider"])
    first, pooled, answer = session.run(["first", "pooled", "output"], {"input": images})
    expected = tf.nn.conv2d(images, small.kernel, 2, "SAME").numpy()
    assert np.allclose(first, expected, atol=1e-4)
    assert np.allclose(pooled, np.maximum(expected, 0).mean((1, 2)), atol=1e-4)
    assert np.allclose(answer, small(images)["answer"].numpy(), atol=1e-4)


def test_another_signature_is_taken_by_name(small, tmp_path):
    first = tf.function(
        lambda image: tf.nn.conv2d(image, small.kernel, 1, "VALID", name="narrow"),
        input_signature=[tf.TensorSpec([None, 8, 8, 3])],
    )
    small.first = first
    signatures = {"serving_default": small.__call__, "narrow": first}
    tf.saved_model.save(small, str(tmp_path / "both"), signatures=signatures)
    out = tmp_path / "narrow.onnx"
    spec = f"saved_model:{tmp_path / 'both'}"
    run = nrp_onnx("convert", spec, "--signature", "narrow", "--preprocess", "raw", "-o", out)
    assert run.returncode == 0, run.stderr
    assert (load_backbone(out).source or {})["signature"] == "narrow"
    images = np.random.default_rng(1).random((2, 8, 8, 3), np.float32)
    session = ort.InferenceSession(out, providers=["CPUExecutionProvider"])
    (found,) = session.run(["output"], {"input": images})
    assert np.allclose(found, first(images).numpy(), atol=1e-4)
    for arguments, says in {
        (spec, "--signature", "wide"): "expected wide; found narrow, serving_default",
        ("keras:MobileNet", "--signature", "wide"): "only a SavedModel has signatures",
    }.items():
        run = nrp_onnx("convert", *arguments, "-o", tmp_path / "x.onnx")
        assert_user_error(run, says)


def test_what_keras_exports(tmp_path):
    model = keras_models.sequential()
    model.export(str(tmp_path / "plain"), verbose=False)
    run = nrp_onnx("convert", "saved_model:plain", "-o", "plain.onnx", cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    assert "taking imagenet" in run.stderr
    images = np.random.default_rng(1).uniform(-1, 1, (2, 16, 16, 3)).astype(np.float32)
    session = ort.InferenceSession(tmp_path / "plain.onnx", providers=["CPUExecutionProvider"])
    (answer,) = session.run(["output"], {"input": images})
    assert np.allclose(answer, keras.ops.convert_to_numpy(model(images)), atol=1e-5)
    backbone = load_backbone(tmp_path / "plain.onnx")
    assert any("conv" in layer.name for layer in backbone.layers)


def test_bad_folders_say_what_to_do(small, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tf.saved_model.save(small, str(tmp_path / "bare"), signatures={})
    tf.saved_model.save(small, str(tmp_path / "two"), signatures=small.of_two)
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "saved_model.pb").write_bytes(b"no model")
    cases = {
        "bare": ["no serving signature", "found none", "model.export(DIR)"],
        "two": ["no single image input", "one", "two"],
        "missing": ["no SavedModel is there", "nothing"],
        "broken": ["TensorFlow cannot load it"],
    }
    for name, says in cases.items():
        with pytest.raises(NrpOnnxError) as caught:
            convert_spec(f"saved_model:{name}", Request())
        assert "\n" not in str(caught.value)
        for words in (name, *says):
            assert words in str(caught.value)
