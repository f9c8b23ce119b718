"""onnx:FILE: layers, batch axis and metadata of models from elsewhere, and what is refused."""

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from nrp_converters.converted_model import ConvertedModel
from nrp_converters.onnx_file import from_spec
from nrp_converters.parity import with_parity
from nrp_converters.request import Request
from nrp_onnx.backbone.model import load_backbone
from nrp_onnx.backbone.preprocessing import PRESETS, preprocessing_from_json
from nrp_onnx.errors import ModelError, NrpOnnxError, OptionError
from tests.command_line import assert_user_error, nrp_onnx

#: Together they take over ten seconds of a core.
pytestmark = pytest.mark.slow

LIGHT = Path(onnx.__file__).parent / "backend/test/data/light"


def random(*shape: int, dtype: type = np.float32) -> np.ndarray:
    rng = np.random.default_rng(shape[0])
    array: np.ndarray = rng.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))
    return array.astype(dtype)


def save(
    path: Path, nodes, weights, shape, out="y", dtype=TensorProto.FLOAT, opset=17, **more
) -> Path:
    listed = more.pop("listed", False)
    given = [helper.make_tensor_value_info("x", dtype, shape)]
    tensors = [numpy_helper.from_array(array, name) for name, array in weights.items()]
    if listed:
        given += [helper.make_tensor_value_info(t.name, t.data_type, t.dims) for t in tensors]
    graph = helper.make_graph(
        nodes, "g", given, [helper.make_tensor_value_info(out, dtype, None)], tensors
    )
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=3 if listed else 8, **more
    )
    onnx.save(model, path)
    return path


def half_network(path: Path) -> Path:
    """Opset 11, float16, batch fixed at 1 by a Reshape, initialisers among the inputs."""
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["conv"], strides=[2, 2], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["conv"], ["relu"]),
        helper.make_node("Reshape", ["relu", "shape"], ["flat"]),
        helper.make_node("Gemm", ["flat", "v"], ["fc"]),
        helper.make_node("Softmax", ["fc"], ["y"]),
    ]
    weights = {
        "w": random(8, 3, 3, 3, dtype=np.float16),
        "v": random(8 * 16 * 16, 5, dtype=np.float16),
        "shape": np.array([1, 8 * 16 * 16]),
    }
    return save(path, nodes, weights, [1, 3, 32, 32], dtype=TensorProto.FLOAT16, opset=11,
                listed=True)  # fmt: skip


def nhwc_network(path: Path) -> Path:
    """NHWC with an open batch axis, named as TensorFlow's converter names tensors."""
    scope = "StatefulPartitionedCall/model/"
    nodes = [
        helper.make_node("Transpose", ["x"], ["t:0"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["t:0", "w"], [f"{scope}conv1/Conv2D:0"], strides=[2, 2]),
        helper.make_node("Relu", [f"{scope}conv1/Conv2D:0"], [f"{scope}relu1/Relu:0"]),
        helper.make_node("GlobalAveragePool", [f"{scope}relu1/Relu:0"], [f"{scope}pool:0"]),
        helper.make_node("Flatten", [f"{scope}pool:0"], ["flat"]),
        helper.make_node("MatMul", ["flat", "v"], ["y"]),
    ]
    weights = {"w": random(8, 3, 3, 3), "v": random(8, 4)}
    return save(path, nodes, weights, ["n", 32, 32, 3], producer_name="tf2onnx")


def outputs_of(model: ConvertedModel, images: np.ndarray) -> dict[str, np.ndarray]:
    session = ort.InferenceSession(
        model.onnx.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, {"x": images}), strict=True))


def assert_close(found: np.ndarray, expected: np.ndarray, tolerance: float) -> None:
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= tolerance * np.abs(expected).max()


def test_half_precision_model_of_one_image_takes_several(tmp_path: Path) -> None:
    request = Request(preprocessing=PRESETS["tf"])
    model = from_spec(str(half_network(tmp_path / "half.onnx")), request)
    assert [layer.name for layer in model.layers] == ["conv", "relu", "fc", "y"]
    assert not request.notes.said
    x = random(4, 3, 32, 32, dtype=np.float16) * 40
    got = outputs_of(model, x)
    weights = {t.name: numpy_helper.to_array(t) for t in onnx.load(tmp_path / "half.onnx").graph.initializer}  # fmt: skip
    padded = np.pad(x.astype(np.float64), ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))[:, :, ::2, ::2]
    conv = np.einsum("nchwij,ocij->nohw", windows, weights["w"].astype(np.float64))
    scores = np.maximum(conv, 0).reshape(4, -1) @ weights["v"].astype(np.float64)
    power = np.exp(scores - scores.max(axis=1, keepdims=True))
    expected = {
        "conv": conv,
        "relu": np.maximum(conv, 0),
        "fc": scores,
        "y": power / power.sum(axis=1, keepdims=True),
    }
    for name, array in expected.items():
        assert got[name].dtype == np.float16
        assert_close(got[name].astype(np.float64), array, 4e-3)
    assert with_parity(model).tolerance == 4e-3


def test_nhwc_model_gets_short_names_and_keeps_its_batch_axis(tmp_path: Path) -> None:
    path = nhwc_network(tmp_path / "nhwc.onnx")
    model = from_spec(str(path), Request(preprocessing=PRESETS["tf"]))
    table = {layer.name: layer for layer in model.layers}
    assert list(table) == ["model/conv1/Conv2D", "model/relu1/Relu", "model/pool", "y"]
    assert table["model/relu1/Relu"].shape == (8, 15, 15)
    assert (model.preprocessing.layout, model.preprocessing.size) == ("NHWC", (32, 32))
    exposed = onnx.load(path)
    del exposed.graph.output[:]
    exposed.graph.output.extend(
        helper.make_tensor_value_info(layer.tensor, TensorProto.FLOAT, None)
        for layer in model.layers
    )
    x = random(3, 32, 32, 3)
    expected = ReferenceEvaluator(exposed).run(None, {"x": x})
    got = outputs_of(model, x)
    for layer, array in zip(model.layers, expected, strict=True):
        assert_close(got[layer.tensor], array, 1e-5)


@pytest.mark.parametrize("make", [half_network, nhwc_network])
def test_convert_layers_and_score(make, recordings_folder: Path, tmp_path: Path) -> None:
    source, out = make(tmp_path / "source.onnx"), tmp_path / "out.onnx"
    run = nrp_onnx("convert", f"onnx:{source}", "-o", out, "--preprocess", "tf")
    assert run.returncode == 0, run.stderr
    assert "4 layers, largest relative error" in run.stdout
    assert run.stderr == ""
    onnx.checker.check_model(str(out), full_check=True)
    rows = json.loads(nrp_onnx("layers", out, "--json").stdout)
    assert [len(row["shape"]) for row in rows] == ([3, 3, 1, 1] if "half" in make.__name__ else [3, 3, 3, 1])  # fmt: skip
    run = nrp_onnx(
        "score", out, "--recordings", recordings_folder, "-o", tmp_path / "run", "--search",
        "quick", "--folds", "2",
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["nrp_error"] > 0
    assert result["model"]["source"]["spec"] == "onnx:source.onnx"


def test_metadata_has_the_origin_and_no_local_paths(tmp_path: Path) -> None:
    path = nhwc_network(tmp_path / "nhwc.onnx")
    proto = onnx.load(path)
    proto.graph.node[1].doc_string = "/home/user/model.py(12): forward"
    trace = proto.graph.node[1].metadata_props.add()
    trace.key, trace.value = "pkg.torch.onnx.stack_trace", 'File "/home/user/model.py"'
    licence = proto.metadata_props.add()
    licence.key, licence.value = "license", "MIT"
    onnx.save(proto, path)
    model = from_spec(str(path), Request(preprocessing=PRESETS["raw"]))
    content = model.onnx.SerializeToString()
    assert b"/home/user" not in content
    assert str(tmp_path).encode() not in content
    metadata = {entry.key: entry.value for entry in model.onnx.metadata_props}
    assert metadata["license"] == "MIT"
    assert model.onnx.producer_name == "tf2onnx"
    source = json.loads(metadata["nrp_onnx.source"])
    assert source["n_parameters"] == 8 * 3 * 9 + 8 * 4
    assert (source["producer"], source["opset"]) == ("tf2onnx", 17)
    assert len(source["sha256"]) == 64
    assert all(
        output.type.tensor_type.shape.dim[0].dim_param == "batch"
        for output in model.onnx.graph.output
    )


def test_a_converted_model_converts_again_with_its_table_and_preprocessing(tmp_path: Path) -> None:
    first = from_spec(
        str(nhwc_network(tmp_path / "nhwc.onnx")), Request(preprocessing=PRESETS["caffe"])
    )
    first.save(tmp_path / "first.onnx")
    request = Request()
    second = from_spec(str(tmp_path / "first.onnx"), request)
    assert second.layers == first.layers
    assert second.preprocessing == first.preprocessing
    assert not request.notes.said
    source = load_backbone(tmp_path / "first.onnx").source
    assert source is not None
    second.save(tmp_path / "second.onnx")
    again = load_backbone(tmp_path / "second.onnx").source
    assert again is not None
    assert again["original"] == source


def test_a_batch_that_cannot_be_opened_stays_one(tmp_path: Path) -> None:
    """A class token of shape (1, 1, 4) is joined to the tokens of one image."""
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["conv"], strides=[8, 8]),
        helper.make_node("Reshape", ["conv", "shape"], ["flat"]),
        helper.make_node("Concat", ["token", "flat"], ["y"], axis=2),
    ]
    weights = {
        "w": random(4, 3, 8, 8), "shape": np.array([1, 4, 16]), "token": random(1, 4, 1),
    }  # fmt: skip
    path = save(tmp_path / "token.onnx", nodes, weights, [1, 3, 32, 32])
    request = Request(preprocessing=PRESETS["tf"])
    model = from_spec(str(path), request)
    assert "the batch axis stays 1" in request.notes.said[0]
    assert model.onnx.graph.input[0].type.tensor_type.shape.dim[0].dim_value == 1
    assert with_parity(model).max_relative_error <= 1e-3


def test_an_open_batch_axis_over_which_images_mix_is_closed(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("ReduceMean", ["x"], ["mean"], axes=[0], keepdims=1),
        helper.make_node("Sub", ["x", "mean"], ["centred"]),
        helper.make_node("Add", ["centred", "x"], ["y"]),
    ]
    path = save(tmp_path / "mixing.onnx", nodes, {}, ["n", 3, 16, 16])
    request = Request(preprocessing=PRESETS["tf"])
    model = from_spec(str(path), request)
    assert "y is another for 3 images than for each" in request.notes.said[0]
    assert model.onnx.graph.input[0].type.tensor_type.shape.dim[0].dim_value == 1


def test_reshapes_that_fold_the_batch_into_the_first_axis(tmp_path: Path) -> None:
    """(1, 4, 8, 8) -> (2, 2, 64) as heads of attention do -> (1, 4, 64)."""
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["conv"], strides=[2, 2]),
        helper.make_node("Reshape", ["conv", "heads"], ["folded"]),
        helper.make_node("Softmax", ["folded"], ["softmax"], axis=-1),
        helper.make_node("Reshape", ["softmax", "joined"], ["back"]),
        helper.make_node("Mul", ["back", "two"], ["y"]),
    ]
    weights = {
        "w": random(4, 3, 2, 2), "heads": np.array([2, 2, 64]), "joined": np.array([1, 4, 64]),
        "two": np.full(1, 2, np.float32),
    }  # fmt: skip
    path = save(tmp_path / "heads.onnx", nodes, weights, [1, 3, 16, 16])
    request = Request(preprocessing=PRESETS["tf"])
    model = from_spec(str(path), request)
    assert not request.notes.said
    assert [layer.name for layer in model.layers] == ["conv", "y"]
    x = random(5, 3, 16, 16)
    evaluator = ReferenceEvaluator(str(path))
    expected: list[np.ndarray] = []
    for i in range(5):
        (one,) = evaluator.run(None, {"x": x[i : i + 1]})
        expected.append(np.asarray(one))
    assert_close(outputs_of(model, x)["y"], np.concatenate(expected), 1e-5)


def test_names_of_the_older_pytorch_exporter_become_module_paths(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["/layer1/layer1.0/conv/Conv_output_0"],
                         name="/layer1/layer1.0/conv/Conv"),
        helper.make_node("Relu", ["/layer1/layer1.0/conv/Conv_output_0"], ["y"],
                         name="/layer1/layer1.0/relu/Relu_1"),
    ]  # fmt: skip
    path = save(tmp_path / "old.onnx", nodes, {"w": random(4, 3, 3, 3)}, ["n", 3, 16, 16])
    layers = {layer.name: layer.tensor for layer in load_backbone(path).layers}
    conv = "/layer1/layer1.0/conv/Conv_output_0"
    assert layers == {"layer1.0.conv": conv, "layer1.0.relu": "y", "layer1.0": "y", "layer1": "y"}
    model = from_spec(str(path), Request(preprocessing=PRESETS["tf"]))
    assert set(with_parity(model).layers) == set(layers)


def test_module_paths_survive_an_old_opset(tmp_path: Path) -> None:
    path = nhwc_network(tmp_path / "scopes.onnx")
    proto = onnx.load(path)
    for place, module in ((1, "features.conv"), (2, "features.relu")):
        entry = proto.graph.node[place].metadata_props.add()
        entry.key, entry.value = "pkg.torch.onnx.name_scopes", str(["", "features", module, "n"])
    onnx.save(proto, path)
    backbone = load_backbone(path)
    assert [layer.name for layer in backbone.layers] == [
        "features.conv", "features.relu", "features",
    ]  # fmt: skip
    model = from_spec(str(path), Request(preprocessing=PRESETS["tf"]))
    scopes = [e.value for node in model.onnx.graph.node for e in node.metadata_props]
    assert scopes == [str(["", "features", m, "n"]) for m in ("features.conv", "features.relu")]


def test_an_open_image_size_is_asked_for_and_then_fixed(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["conv"]),
        helper.make_node("Relu", ["conv"], ["y"]),
    ]
    path = save(tmp_path / "open.onnx", nodes, {"w": random(4, 3, 3, 3)}, ["n", 3, "h", "w"])
    run = nrp_onnx("convert", f"onnx:{path}", "-o", tmp_path / "x.onnx", "--preprocess", "tf")
    assert_user_error(run, "leaves its image size open", "--input-size 224x224")
    run = nrp_onnx(
        "convert", f"onnx:{path}", "-o", tmp_path / "x.onnx", "--preprocess", "tf",
        "--input-size", "40x32",
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    backbone = load_backbone(tmp_path / "x.onnx")
    assert (backbone.input.height, backbone.input.width, backbone.input.batch) == (40, 32, None)
    assert [layer.shape for layer in backbone.layers] == [(4, 38, 30)] * 2


def test_preprocessing_can_name_the_open_size(tmp_path: Path) -> None:
    path = save(
        tmp_path / "open.onnx", [helper.make_node("Relu", ["x"], ["y"])], {}, ["n", 3, "h", "w"]
    )
    spec = preprocessing_from_json({"size": {"height": 20, "width": 24}}, "test")
    model = from_spec(str(path), Request(preprocessing=spec))
    assert model.layers[0].shape == (3, 20, 24)


def two_inputs(path: Path) -> Path:
    x = [helper.make_tensor_value_info(n, 1, ["n", 3, 8, 8]) for n in "xz"]
    y = helper.make_tensor_value_info("y", 1, None)
    graph = helper.make_graph([helper.make_node("Add", ["x", "z"], ["y"])], "g", x, [y])
    onnx.save(helper.make_model(graph), path)
    return path


def unknown_operator(path: Path) -> Path:
    nodes = [helper.make_node("Polish", ["x"], ["y"], domain="com.example")]
    save(path, nodes, {}, ["n", 3, 8, 8])
    proto = onnx.load(path)
    proto.opset_import.append(helper.make_opsetid("com.example", 1))
    onnx.save(proto, path)
    return path


def overflowing(path: Path) -> Path:
    nodes = [
        helper.make_node("Mul", ["x", "big"], ["m"]),
        helper.make_node("Mul", ["m", "m"], ["y"]),
    ]
    return save(path, nodes, {"big": np.full(1, 1e30, np.float32)}, ["n", 3, 8, 8])


@pytest.mark.parametrize(
    ("make", "options", "error", "says"),
    [
        (two_inputs, {}, ModelError, ["no single image input", "x FLOAT", "z FLOAT"]),
        (unknown_operator, {}, ModelError, ["cannot load the model", "Polish"]),
        (overflowing, {}, ModelError, ["the layer y is not finite", "--preprocess"]),
        (lambda path: path, {}, ModelError, ["no such model file"]),
        (nhwc_network, {"weights": "none"}, OptionError, ["has its own weights"]),
        (nhwc_network, {"input_size": (64, 64)}, OptionError, ["is fixed", "32x32", "64x64"]),
    ],
)
def test_what_is_refused(make, options, error, says, tmp_path: Path, capfd) -> None:
    path = make(tmp_path / "model.onnx")
    request = Request(**{"preprocessing": PRESETS["tf"], **options})
    with pytest.raises(NrpOnnxError) as caught:
        from_spec(str(path), request)
    assert type(caught.value) is error
    for words in says:
        assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("name", ["bvlc_alexnet", "shufflenet", "squeezenet"])
def test_published_graphs_open_their_batch_axis(name: str, capfd) -> None:
    """Of one image, at opset 9, with Reshapes to constants; the numbers are those of the source."""
    request = Request(preprocessing=PRESETS["imagenet"])
    model = from_spec(str(LIGHT / f"light_{name}.onnx"), request)
    assert not request.notes.said
    assert model.onnx.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"
    parity = with_parity(model)
    assert parity.max_relative_error <= 1e-3
    assert len(parity.layers) == len(model.layers)
    # SqueezeNet's and AlexNet's sizes as published.
    counts = {"bvlc_alexnet": 60_965_224, "squeezenet": 1_235_496}
    source = json.loads({e.key: e.value for e in model.onnx.metadata_props}["nrp_onnx.source"])
    assert source["n_parameters"] == counts.get(name, source["n_parameters"])
    assert capfd.readouterr().err == ""


def test_a_constant_network_gets_the_score_of_the_mean_and_says_so(
    recordings_folder: Path, tmp_path: Path
) -> None:
    nodes = [
        helper.make_node("Mul", ["x", "zero"], ["nothing"]),
        helper.make_node("Conv", ["nothing", "w", "b"], ["y"]),
    ]
    weights = {
        "zero": np.zeros(1, np.float32), "w": random(4, 3, 3, 3), "b": np.ones(4, np.float32),
    }  # fmt: skip
    source = save(tmp_path / "constant.onnx", nodes, weights, ["n", 3, 32, 32])
    run = nrp_onnx("convert", f"onnx:{source}", "-o", tmp_path / "x.onnx", "--preprocess", "tf")
    assert run.returncode == 0, run.stderr
    run = nrp_onnx(
        "score", tmp_path / "x.onnx", "--recordings", recordings_folder, "-o", tmp_path / "run",
        "--search", "quick", "--folds", "2",
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    assert "Warning" not in run.stderr
    assert "no layer tells the images apart" in run.stderr
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert any("no layer tells the images apart" in note for note in result["notes"])
    predictors = result["regions"]["V4"]["predictors"]
    for name in ("ols", "ridge", "pls"):
        assert predictors[name]["mae"] == pytest.approx(predictors["mean"]["mae"], rel=1e-6)
    assert predictors["nrp"]["mae"] == pytest.approx(predictors["mean"]["mae"], rel=0.15)


@pytest.mark.parametrize(("gain", "says"), [(1e30, None), (1e-30, "same for every image")])
def test_huge_and_vanishing_activations_give_numbers(
    gain: float, says: str | None, recordings_folder: Path, tmp_path: Path
) -> None:
    """x * 1e30; and 1 + x * 1e-30, which is 1 in float32."""
    nodes = [helper.make_node("Mul", ["x", "gain"], ["scaled"])]
    offset = 0 if gain > 1 else 1
    nodes.append(helper.make_node("Add", ["scaled", "offset"], ["y"]))
    weights = {"gain": np.full(1, gain, np.float32), "offset": np.full(1, offset, np.float32)}
    source = save(tmp_path / "m.onnx", nodes, weights, ["n", 3, 32, 32])
    run = nrp_onnx(
        "score", source, "--recordings", recordings_folder, "-o", tmp_path / "run", "--search",
        "quick", "--folds", "2", "--layers", "y", "--preprocess", "tf",
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    assert "Warning" not in run.stderr
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    for predictor in result["regions"]["V4"]["predictors"].values():
        assert np.isfinite(predictor["mae"])
    assert (says is None) or says in run.stderr
