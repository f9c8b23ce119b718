"""Models of one channel get luminance, in the graph: in extraction, in scores, in what is exported."""

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pyarrow.parquet as pq
import pytest
from PIL import Image

from nrp_onnx import extract, load_predictor
from nrp_onnx.backbone.feature_graph import Feature, build_feature_graph, to_checked_proto
from nrp_onnx.backbone.model import load_backbone
from nrp_onnx.backbone.preprocessing import PRESETS, Preprocessing, preprocessing_from_json
from nrp_onnx.backbone.reductions import Reduction
from nrp_onnx.errors import OptionError
from nrp_onnx.notes import Notes
from nrp_onnx.recordings import load_recordings
from nrp_onnx.scoring.choices import choose_preprocessing
from tests.command_line import assert_user_error, nrp_onnx

SIDE = 24


def _model(
    path: Path,
    nodes: list[onnx.NodeProto],
    shape: list[str | int | None],
    *weights: onnx.TensorProto,
) -> Path:
    x = onnx.helper.make_tensor_value_info("x", 1, shape)
    y = onnx.helper.make_tensor_value_info("y", 1, None)
    graph = onnx.helper.make_graph(nodes, "model", [x], [y], list(weights))
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)]), path)
    return path


@pytest.fixture(params=["NCHW", "NHWC"])
def identity(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Returns its input of one channel."""
    shape: list[str | int | None] = (
        ["n", 1, SIDE, SIDE] if request.param == "NCHW" else ["n", SIDE, SIDE, 1]
    )
    one = onnx.numpy_helper.from_array(np.ones(1, np.float32), "one")
    node = onnx.helper.make_node("Mul", ["x", "one"], ["y"])
    return _model(tmp_path / "identity.onnx", [node], shape, one)


@pytest.fixture
def grey_network(tmp_path: Path) -> Path:
    """Convolutions over one channel."""
    rng = np.random.default_rng(0)
    weights = [
        onnx.numpy_helper.from_array(rng.normal(0, 0.3, (8, 1, 3, 3)).astype(np.float32), "w"),
        onnx.numpy_helper.from_array(rng.normal(0, 0.3, (6, 8, 3, 3)).astype(np.float32), "v"),
    ]
    nodes = [
        onnx.helper.make_node("Conv", ["x", "w"], ["a"], strides=[2, 2]),
        onnx.helper.make_node("Relu", ["a"], ["b"]),
        onnx.helper.make_node("Conv", ["b", "v"], ["c"], strides=[2, 2]),
        onnx.helper.make_node("Relu", ["c"], ["y"]),
    ]
    return _model(tmp_path / "grey.onnx", nodes, ["n", 1, 32, 32], *weights)


def _input_of(path: Path, spec: Preprocessing | None, pixels: np.ndarray) -> np.ndarray:
    """What the model gets of one image, (SIDE, SIDE)."""
    backbone, notes = load_backbone(path), Notes()
    (layer,) = backbone.layers
    if spec is None:
        spec = choose_preprocessing(backbone, "raw", notes)
        assert "luminance (ITU-R 601" in notes.said[0]
    else:
        given = backbone.input
        spec = spec.for_input(given.height, given.width, given.layout, given.dtype, given.channels)
    features = [Feature(layer, Reduction("none"))]
    proto = to_checked_proto(build_feature_graph(backbone, spec, features), "graph")
    session = ort.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    found: np.ndarray = session.run(None, {"images": pixels[None]})[0]
    return found.reshape(SIDE, SIDE)


def test_luminance_is_that_of_pillow(identity: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    found = _input_of(identity, None, pixels)
    np.testing.assert_allclose(found, pixels @ np.array([0.299, 0.587, 0.114]), atol=1e-3)
    # Pillow rounds to a level.
    assert np.abs(found - np.asarray(Image.fromarray(pixels).convert("L"), float)).max() <= 0.51


@pytest.mark.parametrize("preset", ["imagenet", "tf", "caffe"])
def test_mean_and_deviation_are_the_luminance_of_those_of_the_channels(
    identity: Path, preset: str
) -> None:
    spec = PRESETS[preset]
    pixels = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    grey = np.array([0.299, 0.587, 0.114])
    expected = pixels @ grey * spec.rescale_factor - grey @ spec.image_mean
    found = _input_of(identity, spec, pixels)
    np.testing.assert_allclose(found, expected / (grey @ spec.image_std), atol=1e-4)


def test_one_mean_in_a_preprocessor_config_is_that_of_grey() -> None:
    content = {"image_mean": [0.5], "image_std": [0.25], "channel_order": "L"}
    spec = preprocessing_from_json(content, "here")
    assert (spec.image_mean, spec.image_std) == ((0.5,) * 3, (0.25,) * 3)
    assert preprocessing_from_json(spec.to_json(), "there") == spec
    with pytest.raises(OptionError, match=r"image_mean is wrong.*or one"):
        preprocessing_from_json({"image_mean": [0.5, 0.5]}, "here")


def test_three_channels_do_not_take_luminance(model_path: Path, tmp_path: Path) -> None:
    (tmp_path / "grey.json").write_text(json.dumps({"channel_order": "L"}))
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    run = nrp_onnx(
        "extract", model_path, "--images", tmp_path, "-o", tmp_path / "out",
        "--preprocess", tmp_path / "grey.json",
    )  # fmt: skip
    assert_user_error(run, "gives one channel and the model takes three")


def test_what_is_scored_on_luminance_is_shipped_with_it(
    grey_network: Path, recordings_folder: Path, tmp_path: Path
) -> None:
    run = nrp_onnx(
        "score", grey_network, "--recordings", recordings_folder, "-o", tmp_path / "out",
        "--search", "quick", "--preprocess", "raw",
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    assert "note: the model takes one channel: it gets luminance" in run.stderr
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    assert result["model"]["preprocessing"]["channel_order"] == "L"
    assert "luminance, NCHW" in (tmp_path / "out" / "report.html").read_text()
    recordings = load_recordings(recordings_folder)
    table = pq.read_table(tmp_path / "out" / "predictions.parquet").to_pylist()
    held_out = [row for row in table if row["fold"] == 0]
    places = [recordings.stimulus_ids.index(row["stimulus_id"]) for row in held_out]
    predictor = load_predictor(tmp_path / "out" / "predictor.onnx", "cpu")
    found = predictor.predict([recordings.stimulus_paths[place] for place in places])
    scored = np.array([row[result["headline"]] for row in held_out])
    np.testing.assert_allclose(found, scored, atol=1e-3)


def test_the_shared_model_of_one_channel_sees_luminance(
    shared: Path, recordings_folder: Path, tmp_path: Path
) -> None:
    path = shared / "cases" / "models" / "one_channel.onnx"
    images = recordings_folder / "stimuli"
    found = extract(path, images, tmp_path / "out", preprocess="raw", reduce="none")
    (layer,) = found.values()
    assert layer.array().shape == (40, 8, 32, 32)
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    (tmp_path / "one").mkdir()
    Image.new("RGB", (32, 32), (77, 77, 77)).save(tmp_path / "one" / "grey.png")
    (layer,) = extract(
        path, tmp_path / "one", tmp_path / "out1", preprocess="raw", reduce="none"
    ).values()
    # A grey image is its own luminance.
    (expected,) = session.run(None, {"x": np.full((1, 1, 64, 64), 77, np.float32)})
    np.testing.assert_allclose(layer.array(), expected, rtol=1e-4, atol=1e-3)
