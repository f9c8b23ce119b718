"""Preprocessing nodes against Pillow, reductions against PyTorch, layers as users see them."""

import itertools
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from PIL import Image
from torch import nn

from nrp_converters.parity import preprocessed
from nrp_onnx.backbone.choose_layers import auto_layers, select_layers
from nrp_onnx.backbone.feature_graph import Feature, build_feature_graph, to_checked_proto
from nrp_onnx.backbone.layers import LAYERS_KEY, Layer, layers_to_json
from nrp_onnx.backbone.model import load_backbone
from nrp_onnx.backbone.preprocessing import PRESETS, Preprocessing, preprocessing_from_json
from nrp_onnx.backbone.reductions import Reduction
from nrp_onnx.errors import OptionError
from nrp_onnx.notes import Notes
from tests.command_line import assert_user_error, nrp_onnx


def run_graph(path: Path, spec: Preprocessing, name: str, reduction: Reduction, images: np.ndarray):
    backbone = load_backbone(path)
    (layer,) = [layer for layer in backbone.layers if layer.name == name]
    given = backbone.input
    spec = spec.for_input(given.height, given.width, given.layout, given.dtype)
    proto = to_checked_proto(
        build_feature_graph(backbone, spec, [Feature(layer, reduction)]), "graph"
    )
    assert [output.name for output in proto.graph.output] == [name]
    session = ort.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"images": images})[0]


@pytest.fixture
def identity(tmp_path: Path) -> Path:
    """A backbone that returns its input, 24 x 24, so that preprocessing can be read off."""
    node = onnx.helper.make_node("Mul", ["x", "one"], ["y"])
    one = onnx.numpy_helper.from_array(np.ones(1, np.float32), "one")
    x, y = (
        onnx.helper.make_tensor_value_info(name, 1, ["batch", 3, 24, 24]) for name in ("x", "y")
    )
    graph = onnx.helper.make_graph([node], "identity", [x], [y], [one])
    path = tmp_path / "identity.onnx"
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)]), path)
    return path


@pytest.mark.parametrize("size", [(24, 24), (60, 37), (12, 20)])
def test_raw_preprocessing_resizes_like_pillow(identity: Path, size: tuple[int, int]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    expected = Image.fromarray(pixels).resize((24, 24), Image.Resampling.BILINEAR)
    found = run_graph(identity, PRESETS["raw"], "y", Reduction("none"), pixels[None])
    found = found.reshape(3, 24, 24).transpose(1, 2, 0)
    # Pillow rounds after each of its two passes, in fixed point: half a level each, and a little.
    assert np.abs(found - np.asarray(expected, np.float32)).max() <= 1.01


@pytest.mark.parametrize("preset", ["imagenet", "tf", "caffe"])
def test_presets_follow_their_formulas(identity: Path, preset: str) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (1, 24, 24, 3), dtype=np.uint8)
    x = pixels.astype(np.float64).transpose(0, 3, 1, 2)
    column = lambda values: np.array(values).reshape(1, 3, 1, 1)  # noqa: E731
    expected = {
        "imagenet": (x / 255 - column([0.485, 0.456, 0.406])) / column([0.229, 0.224, 0.225]),
        "tf": x / 127.5 - 1,
        "caffe": x[:, ::-1] - column([103.939, 116.779, 123.68]),
    }[preset]
    found = run_graph(identity, PRESETS[preset], "y", Reduction("none"), pixels)
    np.testing.assert_allclose(found, expected.reshape(1, -1), atol=2e-4)


def test_shortest_edge_and_centre_crop(identity: Path) -> None:
    spec = preprocessing_from_json(
        {"size": {"shortest_edge": 48}, "do_center_crop": True, "do_rescale": False,
         "crop_size": {"height": 24, "width": 24}, "do_normalize": False}, "test",
    )  # fmt: skip
    pixels = np.random.default_rng(2).integers(0, 256, (48, 96, 3), dtype=np.uint8)
    found = run_graph(identity, spec, "y", Reduction("none"), pixels[None])
    expected = pixels[12:36, 36:60].transpose(2, 0, 1).reshape(1, -1)
    np.testing.assert_allclose(found, expected, atol=1e-3)


def on_screen(image: Image.Image, ratio: float) -> Image.Image:
    """The image on a screen ``ratio`` times as large as itself, by Pillow."""
    width, height = (round(ratio * side) for side in image.size)
    screen = Image.new("RGB", (width, height), "gray")
    # Pillow takes a paste beyond the edges, and numbers its box from the top left corner.
    left, top = (round((image.size[i] - screen.size[i]) / 2) for i in (0, 1))
    if ratio < 1:
        screen.paste(image.crop((left, top, left + width, top + height)))
    else:
        screen.paste(image, (-left, -top))
    return screen


@pytest.mark.parametrize("size", [(24, 24), (63, 40), (17, 31)])
@pytest.mark.parametrize("ratio", [2.0, 10 / 8, 4 / 3, 0.5, 0.7, 4 / 8.4, 0.001])
def test_images_are_put_on_a_screen_as_pillow_does(ratio: float, size: tuple[int, int]) -> None:
    pixels = np.random.default_rng(7).integers(0, 256, (2, *size, 3), dtype=np.uint8)
    spec = Preprocessing(ratio, size=(24, 24), layout="NCHW", dtype="float32")
    found = preprocessed(pixels, spec).transpose(0, 2, 3, 1)
    for image, placed in zip(pixels, found, strict=True):
        if ratio < 0.01:  # a part of a pixel is one pixel
            middle = [int(np.round((side - 1) / 2)) for side in size]
            expected = np.broadcast_to(image[middle[0], middle[1]], (24, 24, 3))
        else:
            screen = on_screen(Image.fromarray(image), ratio)
            expected = np.asarray(screen.resize((24, 24), Image.Resampling.BILINEAR), np.float32)
        assert np.abs(placed - expected).max() <= 1.1


def test_the_screen_comes_before_all_other_steps() -> None:
    """Grey is normalised as the image is, and the model's own crop cuts the screen."""
    pixels = np.zeros((1, 30, 30, 3), np.uint8)
    spec = replace(
        PRESETS["imagenet"], visual_degrees_ratio=2.0, size=60, crop_size=(40, 40)
    ).for_input(40, 40, "NCHW", "float32")
    assert preprocessing_from_json(spec.to_json(), "test") == spec
    found = preprocessed(pixels, spec)
    grey = (128 / 255 - np.array(spec.image_mean)) / spec.image_std
    np.testing.assert_allclose(found[0, :, 0, 0], grey, atol=1e-5)
    black = -np.array(spec.image_mean) / spec.image_std
    np.testing.assert_allclose(found[0, :, 5, 5], black, atol=1e-5)
    np.testing.assert_allclose(found[0, :, 4, 20], grey, atol=1e-5)


@pytest.mark.parametrize("ratio", [0, -1, 181, "2", None])
def test_a_screen_of_no_size_is_refused(ratio: object) -> None:
    with pytest.raises(OptionError, match=r"spec\.json: the key visual_degrees_ratio is wrong"):
        preprocessing_from_json({"visual_degrees_ratio": ratio}, "spec.json")


@pytest.mark.parametrize("resample", [2, 3])
@pytest.mark.parametrize("size", [(24, 20), 24])
def test_channels_last_gets_the_same_pixels(size: tuple[int, int] | int, resample: int) -> None:
    # Grey levels that a cubic filter does not take past 0 or 255, where Pillow clips in between.
    pixels = np.random.default_rng(6).integers(80, 176, (2, 30, 47, 3), dtype=np.uint8)
    crop = (24, 30) if isinstance(size, int) else None
    spec = Preprocessing(size=size, resample=resample, crop_size=crop, dtype="float32")
    channels_first = preprocessed(pixels, replace(spec, layout="NCHW"))
    channels_last = preprocessed(pixels, replace(spec, layout="NHWC"))
    np.testing.assert_allclose(channels_last.transpose(0, 3, 1, 2), channels_first, atol=1e-3)
    # 47 * 24 / 30 is 37.6: torchvision and Hugging Face cut it down.
    width, height = (37, 24) if isinstance(size, int) else size[::-1]
    pillow = Image.fromarray(pixels[0]).resize((width, height), Image.Resampling(resample))
    if crop:
        pillow = pillow.crop((3, 0, 33, 24))
    found = channels_first[0].transpose(1, 2, 0)
    assert np.abs(found - np.asarray(pillow, np.float32)).max() <= 1.1


def test_a_cubic_filter_stays_within_the_grey_levels() -> None:
    pixels = np.zeros((1, 16, 16, 3), np.uint8)
    pixels[:, 4:12] = 255
    found = preprocessed(
        pixels, Preprocessing(size=(40, 40), resample=3, layout="NCHW", dtype="float32")
    )
    assert found.min() == 0
    assert found.max() == 255


@pytest.mark.parametrize("k", [1, 2, 3, 5, 23, 40])
def test_average_pooling_is_adaptive_as_in_pytorch(identity: Path, k: int) -> None:
    pixels = np.random.default_rng(3).integers(0, 256, (2, 24, 24, 3), dtype=np.uint8)
    found = run_graph(identity, PRESETS["raw"], "y", Reduction("avgpool", k), pixels)
    x = torch.from_numpy(pixels).permute(0, 3, 1, 2).float()
    expected = nn.functional.adaptive_avg_pool2d(x, min(k, 24)).flatten(1)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_mean_is_over_positions(identity: Path) -> None:
    pixels = np.random.default_rng(4).integers(0, 256, (2, 24, 24, 3), dtype=np.uint8)
    found = run_graph(identity, PRESETS["raw"], "y", Reduction("mean"), pixels)
    np.testing.assert_allclose(found, pixels.mean(axis=(1, 2)), rtol=1e-5)


def test_layers_of_a_network_are_those_of_pytorch(network: nn.Sequential, model_path: Path) -> None:
    pixels = np.random.default_rng(5).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    x = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1
    for depth, child in enumerate(network):
        x = child(x)
        found = run_graph(model_path, PRESETS["tf"], str(depth), Reduction("none"), pixels)
        np.testing.assert_allclose(found, x.detach().flatten(1), atol=1e-4)


@pytest.mark.parametrize("preset", ["tf", "imagenet"])
def test_shapes_are_known_behind_the_preprocessing(model_path: Path, preset: str) -> None:
    """Without them, ONNX Runtime copies tensors that it could compute in place."""
    backbone = load_backbone(model_path)
    spec = PRESETS[preset].for_input(32, 32, "NCHW", "float32")
    features = [Feature(layer, Reduction("none")) for layer in auto_layers(backbone)]
    proto = to_checked_proto(build_feature_graph(backbone, spec, features), "graph")
    # Only what the preprocessing says of itself may tell.
    told = [value for value in proto.graph.value_info if not value.name.startswith("backbone/")]
    del proto.graph.value_info[:]
    proto.graph.value_info.extend(told)
    inferred = {
        value.name: [axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim]
        for value in onnx.shape_inference.infer_shapes(proto).graph.value_info
    }
    convolved = [node.output[0] for node in proto.graph.node if node.op_type == "Conv"]
    assert [inferred[name] for name in convolved] == [["batch", 8, 16, 16], ["batch", 12, 8, 8]]


def test_auto_spreads_over_depth_and_leaves_out_the_scores(model_path: Path) -> None:
    names = [layer.name for layer in auto_layers(load_backbone(model_path))]
    assert "5" not in names  # the classifier
    assert names == sorted(names)
    assert {"1", "3"} <= set(names)


@pytest.mark.parametrize(
    "name",
    [
        "bvlc_alexnet",
        "densenet121",
        "inception_v1",
        "inception_v2",
        "resnet50",
        "shufflenet",
        "squeezenet",
        "vgg19",
        "zfnet512",
    ],
)
def test_published_graphs_have_layers(name: str) -> None:
    folder = Path(onnx.__file__).parent / "backend/test/data/light"
    backbone = load_backbone(folder / f"light_{name}.onnx")
    assert backbone.input.batch == 1
    chosen = auto_layers(backbone)
    assert 4 <= len(chosen) <= 5
    assert all(layer.shape and layer.n_features != 1000 for layer in chosen)
    assert [layer.depth for layer in chosen] == sorted(layer.depth for layer in chosen)


def test_layers_command(model_path: Path) -> None:
    run = nrp_onnx("layers", model_path, "--json")
    assert run.returncode == 0, run.stderr
    rows = json.loads(run.stdout)
    assert [row["name"] for row in rows] == ["0", "1", "2", "3", "4", "5"]
    assert rows[0]["shape"] == [8, 16, 16]
    assert rows[0]["bytes"] == 8 * 16 * 16 * 4
    table = nrp_onnx("layers", model_path)
    assert "8 x 16 x 16" in table.stdout
    assert "8,192" in table.stdout


def of_names(path: Path, names: list[str]) -> Path:
    """A chain of ReLUs whose layers have these names."""
    tensors = ["x", *(f"t{i}" for i in range(len(names)))]
    nodes = [onnx.helper.make_node("Relu", [a], [b]) for a, b in itertools.pairwise(tensors)]
    values = [
        onnx.helper.make_tensor_value_info(name, 1, ["batch", 3, 8, 8])
        for name in ("x", tensors[-1])
    ]
    model = onnx.helper.make_model(onnx.helper.make_graph(nodes, "g", values[:1], values[1:]))
    layers = [Layer(n, f"t{i}", (3, 8, 8), "NCHW", "Relu", i) for i, n in enumerate(names)]
    onnx.helper.set_model_props(model, {LAYERS_KEY: layers_to_json(layers)})
    onnx.save(model, path)
    return path


def test_layers_can_be_chosen_by_their_number_which_is_said(tmp_path: Path) -> None:
    backbone = load_backbone(of_names(tmp_path / "x.onnx", ["stem", "a,b", "mid", "top"]))
    notes = Notes()
    chosen = select_layers(backbone, "3,stem,1", notes)
    assert [layer.name for layer in chosen] == ["stem", "a,b", "top"]
    assert notes.said == ["--layers by number: 3 is top, 1 is a,b"]
    with pytest.raises(OptionError, match=r"a number from 0 to 3; found '4'"):
        select_layers(backbone, "4")


def test_a_name_that_is_a_number_wins_and_no_other_number_is_taken(tmp_path: Path) -> None:
    backbone = load_backbone(of_names(tmp_path / "x.onnx", ["2", "a", "0", "b"]))
    notes = Notes()
    assert [layer.depth for layer in select_layers(backbone, "0", notes)] == [2]
    assert notes.said == []
    with pytest.raises(OptionError, match=r"numbers are names in this model; found '1'"):
        select_layers(backbone, "1")


def test_the_table_of_layers_shows_long_names_whole_and_nothing_raw(tmp_path: Path) -> None:
    long = "a_module_of_many_parts." * 10
    path = of_names(tmp_path / "x.onnx", [long, "[b]bold[/]\x1b"])
    table = nrp_onnx("layers", path).stdout
    cells = [line.split("│")[1:3] for line in table.splitlines() if line.startswith("│")]
    assert "".join(name.strip() for _, name in cells).startswith(long)
    assert [number.strip() for number, _ in cells if number.strip()] == ["0", "1"]
    assert "[b]bold[/]\\x1b" in table
    assert "\x1b" not in table


def test_a_model_without_an_image_input_is_refused(tmp_path: Path) -> None:
    x, y = (onnx.helper.make_tensor_value_info(name, 1, ["batch", 7]) for name in "xy")
    graph = onnx.helper.make_graph([onnx.helper.make_node("Relu", ["x"], ["y"])], "g", [x], [y])
    onnx.save(onnx.helper.make_model(graph), tmp_path / "vector.onnx")
    run = nrp_onnx("layers", tmp_path / "vector.onnx")
    assert_user_error(run, "vector.onnx", "no single image input", "(batch, 3, H, W)", "[batch,7]")
