"""zoo:AlexNet against the ONNX model zoo's own graph, which comes with onnx, and Caffe's numbers."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import helper, numpy_helper

from nrp_converters.torch.alexnet import AlexNet
from nrp_converters.zoo import load_weights
from nrp_onnx.backbone.model import Backbone, load_backbone
from nrp_onnx.errors import ModelError
from tests.command_line import assert_one_line_error, assert_user_error, convert_command, nrp_onnx

pytestmark = pytest.mark.slow

LIGHT = Path(onnx.__file__).parent / "backend/test/data/light/light_bvlc_alexnet.onnx"
#: For each layer with weights: deviation, bias, and inputs of one unit, as in Caffe's
#: models/bvlc_alexnet/train_val.prototxt.
FILLERS = {
    "conv1": (0.01, 0.0, 3 * 11 * 11),
    "conv2": (0.01, 0.1, 48 * 5 * 5),
    "conv3": (0.01, 0.0, 256 * 3 * 3),
    "conv4": (0.01, 0.1, 192 * 3 * 3),
    "conv5": (0.01, 0.1, 192 * 3 * 3),
    "fc6": (0.005, 0.1, 9216),
    "fc7": (0.005, 0.1, 4096),
    "fc8": (0.01, 0.0, 4096),
}


@pytest.fixture(scope="module")
def zoo_file(tmp_path_factory) -> Path:
    """The zoo's graph, with random weights where its light edition has constants."""
    model = onnx.load(LIGHT)
    shapes = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    made = [node for node in model.graph.node if node.op_type == "ConstantOfShape"]
    rng = np.random.default_rng(0)
    for node in made:
        shape = tuple(shapes[node.input[0]])
        # Each layer's values stay at the scale of its input, so that no layer vanishes.
        scale = 1.5 / np.sqrt(np.prod(shape[1:])) if len(shape) > 1 else 0.3
        values = rng.standard_normal(shape, dtype=np.float32) * np.float32(scale)
        model.graph.initializer.append(numpy_helper.from_array(values, node.output[0]))
        model.graph.node.remove(node)
    inputs = [value for value in model.graph.input if value.name == "data_0"]
    del model.graph.input[:]
    model.graph.input.extend(inputs)
    model.ir_version = 8
    path: Path = tmp_path_factory.mktemp("zoo") / "bvlcalexnet-12.onnx"
    onnx.save(model, path)
    return path


@pytest.fixture(scope="module")
def converted(zoo_file) -> Backbone:
    """With the zoo's weights, at the zoo's size."""
    out = zoo_file.with_name("alexnet.onnx")
    run = convert_command(
        "zoo:alexnet", "-o", out, "--weights", zoo_file, "--input-size", "224x224"
    )
    assert run.returncode == 0, run.stderr
    return load_backbone(out)


#: The zoo's nodes in order, and Caffe's names of them (Reshape makes way for fc6).
NODES = [
    ("Conv", "conv1"), ("Relu", "relu1"), ("LRN", "norm1"), ("MaxPool", "pool1"),
    ("Conv", "conv2"), ("Relu", "relu2"), ("LRN", "norm2"), ("MaxPool", "pool2"),
    ("Conv", "conv3"), ("Relu", "relu3"),
    ("Conv", "conv4"), ("Relu", "relu4"),
    ("Conv", "conv5"), ("Relu", "relu5"), ("MaxPool", "pool5"), ("Reshape", None),
    ("Gemm", "fc6"), ("Relu", "relu6"), ("Dropout", "drop6"),
    ("Gemm", "fc7"), ("Relu", "relu7"), ("Dropout", "drop7"),
    ("Gemm", "fc8"), ("Softmax", "prob"),
]  # fmt: skip


def test_every_layer_equals_the_graph_of_the_model_zoo(zoo_file, converted):
    zoo = onnx.load(zoo_file)
    assert [node.op_type for node in zoo.graph.node] == [op for op, _ in NODES]
    assert [layer.name for layer in converted.layers] == [name for _, name in NODES if name]
    named = {name: node.output[0] for node, (_, name) in zip(zoo.graph.node, NODES, strict=True)}
    known = {output.name for output in zoo.graph.output}
    zoo.graph.output.extend(
        helper.make_tensor_value_info(tensor, onnx.TensorProto.FLOAT, None)
        for tensor in named.values()
        if tensor not in known
    )
    image = np.random.default_rng(1).uniform(-120, 130, (1, 3, 224, 224)).astype(np.float32)
    session = ort.InferenceSession(zoo.SerializeToString(), providers=["CPUExecutionProvider"])
    names = [named[layer.name] for layer in converted.layers]
    expected = session.run(names, {"data_0": image})
    ours = ort.InferenceSession(converted.path, providers=["CPUExecutionProvider"])
    got = ours.run([layer.tensor for layer in converted.layers], {"input": image})
    for layer, mine, theirs in zip(converted.layers, got, expected, strict=True):
        assert mine.shape == theirs.shape, layer.name
        error = np.abs(mine - theirs).max() / np.abs(theirs).max()
        assert error <= 1e-4, f"{layer.name}: relative error {error:.2g}"
        assert theirs.std() > 0, layer.name


def test_groups_and_normalisation_are_those_of_the_zoo():
    attributes = [
        {a.name: helper.get_attribute_value(a) for a in node.attribute}
        for node in onnx.load(LIGHT).graph.node
        if node.op_type in ("Conv", "LRN")
    ]
    network = AlexNet()
    for ours, theirs in zip(
        (
            network.get_submodule(name)
            for _, name in NODES
            if name and name.startswith(("conv", "norm"))
        ),
        attributes,
        strict=True,
    ):
        if isinstance(ours, torch.nn.Conv2d):
            assert ours.groups == theirs.get("group", 1)
            assert list(ours.stride) == theirs["strides"]
            assert [*ours.padding, *ours.padding] == theirs["pads"]
        else:
            assert isinstance(ours, torch.nn.LocalResponseNorm)
            given = (ours.size, ours.alpha, ours.beta, ours.k)
            wanted = [theirs[key] for key in ("size", "alpha", "beta", "bias")]
            assert given == pytest.approx(wanted)


def test_both_parameter_counts_and_the_weights_are_recorded(converted, zoo_file):
    source = converted.source
    assert source is not None
    assert converted.n_parameters == source["n_parameters"] == 60_965_224
    assert source["n_parameters_without_biases"] == 60_954_656
    assert source["weights"] == zoo_file.name
    preprocessing = converted.preprocessing
    assert preprocessing is not None
    assert (preprocessing.channel_order, preprocessing.image_std) == ("BGR", (1.0, 1.0, 1.0))
    assert preprocessing.image_mean == (123.68, 116.779, 103.939)


def test_random_weights_are_those_of_caffe_and_take_227_pixels(tmp_path):
    out = tmp_path / "alexnet.onnx"
    run = nrp_onnx("convert", "zoo:AlexNet", "-o", out, "--weights", "none", "--seed", 2)
    assert run.returncode == 0, run.stderr
    assert run.stderr == ""
    backbone = load_backbone(out)
    assert (backbone.input.height, backbone.input.width) == (227, 227)
    source = backbone.source
    assert source is not None
    assert (source["weights"], source["seed"]) == ("none", 2)
    table = {layer.name: layer.shape for layer in backbone.layers}
    # Caffe's own sizes for its 227 x 227 input.
    assert table["conv1"] == (96, 55, 55)
    assert table["pool1"] == (96, 27, 27)
    assert table["pool2"] == (256, 13, 13)
    assert table["pool5"] == (256, 6, 6)
    weights = {t.name: numpy_helper.to_array(t) for t in backbone.proto.graph.initializer}
    for layer, (deviation, bias, inputs) in FILLERS.items():
        matrix = weights[f"{layer}.weight"].reshape(-1, inputs)
        assert matrix.std() == pytest.approx(deviation, rel=0.02)
        assert abs(matrix.mean()) < deviation / 50
        # Equal biases of two layers are stored once, and biases of zeros not at all.
        (node,) = (n for n in backbone.proto.graph.node if n.output[0] == layer)
        biases = weights[node.input[2]] if len(node.input) > 2 else np.zeros(len(matrix))
        assert biases.shape == (len(matrix),)
        assert (biases == np.float32(bias)).all()


def test_without_network_one_line_names_weights_none(tmp_path, no_network):
    run = nrp_onnx("convert", "zoo:AlexNet", "-o", tmp_path / "x.onnx")
    assert_user_error(run, "zoo:AlexNet", "weights cannot be downloaded", "--weights none")
    assert run.stderr.count("\n") == 1
    assert not list((tmp_path / "cache").rglob("*.onnx"))


def test_a_file_with_another_content_is_no_download(tmp_path, monkeypatch, no_network, zoo_file):
    monkeypatch.setattr("nrp_converters.zoo._URLS", (zoo_file.as_uri(),))
    run = convert_command("zoo:AlexNet", "-o", tmp_path / "x.onnx")
    assert_one_line_error(run, "weights cannot be downloaded", "another content", "SHA-256")
    assert not list((tmp_path / "cache").rglob("*.onnx"))


def test_what_is_no_alexnet_is_refused(tmp_path, model_path):
    with pytest.raises(ModelError, match=r"expected an initialiser conv1_w_0 of shape \(96, 3, 11"):
        load_weights(AlexNet(), model_path)
    out = tmp_path / "x.onnx"
    for arguments, parts in (
        (("zoo:VGG",), ["no such model", "one of AlexNet", "'VGG'"]),
        (("zoo:AlexNet", "--weights", "imagenet"), ["no such weights", "'imagenet'"]),
        (("zoo:AlexNet", "--weights", __file__), ["cannot be read as ONNX"]),
    ):
        assert_one_line_error(convert_command(*arguments, "-o", out), *parts)
