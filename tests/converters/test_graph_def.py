"""Frozen graphs of TensorFlow 1 to ONNX, and what is refused."""

from typing import Any

import numpy as np
import onnxruntime as ort
import pytest

from nrp_converters.tensorflow.packages import tf
from nrp_onnx.backbone.model import load_backbone
from tests.command_line import assert_one_line_error, convert_command
from tests.converters.frozen_graphs import Small, images_of

pytestmark = pytest.mark.tensorflow


@pytest.fixture(scope="module")
def small() -> Small:
    return Small()


def test_a_frozen_graph_equals_tensorflow(small, tmp_path):
    (tmp_path / "frozen.pb").write_bytes(small.definition.SerializeToString())
    out = tmp_path / "frozen.onnx"
    run = convert_command(f"graph_def:{tmp_path / 'frozen.pb'}", "--input-size", "12x10",
                          "--preprocess", "tf", "-o", out)  # fmt: skip
    assert run.returncode == 0, run.stderr
    assert run.stderr == ""
    backbone = load_backbone(out)
    assert [layer.name for layer in backbone.layers] == [
        "conv", "biased", "active", "deep", "deeper", "pooled", "scores", "answer",
    ]  # fmt: skip
    assert backbone.layers[0].layout == "NHWC"
    assert backbone.source is not None
    assert backbone.source["spec"] == "graph_def:frozen.pb"
    images = images_of(3)
    session = ort.InferenceSession(out, providers=["CPUExecutionProvider"])
    found = session.run(["biased", "active", "deeper", "output"], {"input": images})
    for array, (name, expected) in zip(found, small.run(images).items(), strict=True):
        assert np.allclose(array, expected, atol=1e-4), name


def graph(build: Any) -> bytes:
    with tf.Graph().as_default() as made:
        build(tf.compat.v1.placeholder(tf.float32, [None, 8, 8, 3], name="image"))
    content: bytes = made.as_graph_def().SerializeToString()
    return content


def with_two_inputs(image: Any) -> None:
    keep = tf.compat.v1.placeholder(tf.float32, [], name="keep")
    tf.multiply(image, keep, name="scaled")


def unfrozen(image: Any) -> None:
    tf.raw_ops.VariableV2(shape=[3], dtype=tf.float32, name="weights")
    tf.nn.relu(image)


def reading(image: Any) -> None:
    text = tf.io.read_file("/etc/hostname")
    tf.add(image, tf.cast(tf.strings.length(text), tf.float32), name="sum")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (graph(with_two_inputs), ["no single image input", "keep ()"]),
        (graph(unfrozen), ["not frozen", "1 variables, such as weights"]),
        (graph(reading), ["reads or writes files", "ReadFile"]),
        (b"\xffno graph", ["no frozen graph", "9 bytes"]),
        (None, ["no such model file", "found nothing"]),
    ],
    ids=["two_inputs", "unfrozen", "reading", "damaged", "missing"],
)
def test_graphs_that_cannot_be_converted_say_why(content, says, tmp_path):
    if content is not None:
        (tmp_path / "x.pb").write_bytes(content)
    run = convert_command(f"graph_def:{tmp_path / 'x.pb'}", "-o", tmp_path / "x.onnx")
    assert_one_line_error(run, "x.pb", *says)
    assert not (tmp_path / "x.onnx").exists()


def test_an_open_size_is_asked_for(small, tmp_path):
    (tmp_path / "frozen.pb").write_bytes(small.definition.SerializeToString())
    run = convert_command(f"graph_def:{tmp_path / 'frozen.pb'}", "-o", tmp_path / "x.onnx")
    assert_one_line_error(run, "leaves its image size open", "--input-size")


def test_a_saved_model_is_sent_on(tmp_path):
    (tmp_path / "saved_model.pb").write_bytes(b"")
    run = convert_command(f"graph_def:{tmp_path / 'saved_model.pb'}", "-o", tmp_path / "x.onnx")
    assert_one_line_error(run, "no frozen graph", f"Use saved_model:{tmp_path}")
