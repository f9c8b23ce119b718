"""TensorFlow.js: graph models and layers models, as their format documents them, to ONNX."""

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import onnxruntime as ort
import pytest

from nrp_converters.tensorflow.packages import keras
from nrp_onnx.backbone.model import load_backbone
from tests.command_line import assert_one_line_error, convert_command
from tests.converters import keras_models
from tests.converters.frozen_graphs import (
    Small,
    Weights,
    described,
    images_of,
    manifest,
    topology,
)

pytestmark = pytest.mark.tensorflow


@pytest.fixture(scope="module")
def small() -> Small:
    return Small()


def converted(folder: Path, *options: object) -> tuple[Any, str]:
    run = convert_command(f"tfjs:{folder}", "-o", folder / "x.onnx", *options)
    assert run.returncode == 0, run.stderr
    return ort.InferenceSession(folder / "x.onnx", providers=["CPUExecutionProvider"]), run.stderr


SIZE = ("--input-size", "12x10", "--preprocess", "tf")


def test_a_graph_model_in_shards_equals_tensorflow(small, tmp_path):
    content = {
        "format": "graph-model",
        "modelTopology": topology(small),
        "weightsManifest": manifest(small.weights, tmp_path, n_shards=3),
        "signature": {"outputs": {"answer": {"name": "answer:0"}}},
    }
    (tmp_path / "model.json").write_text(json.dumps(content))
    session, said = converted(tmp_path, *SIZE)
    assert said == ""
    images = images_of(3)
    expected = small.run(images)
    found = session.run(["biased", "active", "deeper", "output"], {"input": images})
    for array, (name, value) in zip(found, expected.items(), strict=True):
        assert np.allclose(array, value, atol=1e-4), name
    backbone = load_backbone(tmp_path / "x.onnx")
    assert backbone.n_parameters == sum(
        w.size for w in small.weights.values() if w.dtype.kind == "f"
    )


def test_fused_ops_and_weights_in_base64_within_the_json(small, tmp_path):
    data = b"".join(weight.tobytes() for weight in small.weights.values())
    content = {
        "modelTopology": topology(small, fused=True),
        "weightSpecs": described(small.weights),
        "weightData": base64.b64encode(data).decode(),
    }
    (tmp_path / "model.json").write_text(json.dumps(content))
    session, _ = converted(tmp_path, *SIZE)
    images = images_of(2)
    expected = small.run(images)
    layers = ["active/BiasAdd", "active", "deeper", "output"]
    found = session.run(layers, {"input": images})
    for array, value in zip(found, expected.values(), strict=True):
        assert np.allclose(array, value, atol=1e-4)


def test_quantised_weights_are_the_numbers_that_they_stand_for(small, tmp_path):
    scale, minimum = 0.02, -2.5
    rng = np.random.default_rng(2)
    codes = rng.integers(0, 256, small.weights["kernel"].shape, dtype=np.uint8)
    halves = small.weights["dense"].astype(np.float16)
    (group,) = manifest({**small.weights, "kernel": codes, "dense": halves}, tmp_path)
    for weight in group["weights"]:
        if weight["name"] == "kernel":
            how = {"dtype": "uint8", "scale": scale, "min": minimum}
            weight.update(dtype="float32", quantization=how)
        if weight["name"] == "dense":
            weight.update(dtype="float32", quantization={"dtype": "float16"})
    content = {"modelTopology": topology(small), "weightsManifest": [group]}
    (tmp_path / "model.json").write_text(json.dumps(content))
    session, said = converted(tmp_path, *SIZE)
    assert "quantised (float16, uint8)" in said
    twin = Small()
    twin.weights["kernel"] = (codes * scale + minimum).astype(np.float32)
    twin.weights["dense"] = halves.astype(np.float32)
    images = images_of(2)
    (found,) = session.run(["output"], {"input": images})
    assert np.allclose(found, twin.run(images)["answer"], atol=1e-4)


def layers_model(model: Any, folder: Path) -> dict[str, Any]:
    """A Keras model as the converter of TensorFlow.js writes what an .h5 file holds."""
    model.save(folder / "model.h5")
    weights: Weights = {}
    with h5py.File(folder / "model.h5") as file:
        config = json.loads(file.attrs["model_config"])
        for group in file["model_weights"].values():
            for name in group.attrs.get("weight_names", []):
                weights[name] = group[name][...]
    return {
        "format": "layers-model",
        "modelTopology": {"keras_version": "2.15.0", "model_config": of_keras_2(config)},
        "weightsManifest": manifest(weights, folder),
    }


def of_keras_2(part: Any) -> Any:
    """A configuration as Keras 2 has it: no modules, and batch_input_shape."""
    if isinstance(part, list):
        return [of_keras_2(one) for one in part]
    if not isinstance(part, dict):
        return part
    if part.get("class_name") == "DTypePolicy":
        return part["config"]["name"]
    names = {"batch_shape": "batch_input_shape"}
    return {
        names.get(key, key): of_keras_2(value)
        for key, value in part.items()
        if key not in ("module", "registered_name", "build_config", "optional")
    }


@pytest.mark.parametrize("make", [keras_models.branched, keras_models.sequential])
def test_a_layers_model_equals_keras(make, tmp_path):
    model = make()
    (tmp_path / "model.json").write_text(json.dumps(layers_model(model, tmp_path)))
    session, said = converted(tmp_path, "--preprocess", "tf")
    assert said == ""
    images = images_of(2, keras_models.SIZE, keras_models.SIZE)
    (found,) = session.run(["output"], {"input": images})
    assert np.allclose(found, model.predict(images, verbose=0), atol=1e-5)
    assert load_backbone(tmp_path / "x.onnx").layers[-1].name == "answer"


def test_the_head_of_a_layers_model_is_seen(tmp_path):
    image = keras.Input((8, 8, 3))
    x = keras.layers.Rescaling(1 / 255, name="to_one")(image)
    model = keras.Model(image, keras.layers.Conv2D(2, 3, name="conv")(x))
    (tmp_path / "model.json").write_text(json.dumps(layers_model(model, tmp_path)))
    _, said = converted(tmp_path)
    assert "begins with Rescaling (to_one), made for values 0 to 255" in said


Edit = Callable[[dict[str, Any], Path], None]


def lose_a_shard(_: Any, folder: Path) -> None:
    (folder / "group1-shard1of1.bin").unlink()


def cut_a_shard(_: Any, folder: Path) -> None:
    (folder / "group1-shard1of1.bin").write_bytes(b"12345678")


def climb_out(content: Any, folder: Path) -> None:
    (folder.parent / "elsewhere.bin").write_bytes(b"")
    content["weightsManifest"][0]["paths"] = ["../elsewhere.bin"]


def drop_a_weight(content: Any, folder: Path) -> None:
    content["weightsManifest"] = manifest({"kernel": np.zeros((3, 3, 3, 4), "f4")}, folder)


def fuse_the_unknown(content: Any, _: Path) -> None:
    (node,) = (node for node in content["modelTopology"]["node"] if node["name"] == "conv")
    node["op"] = "_FusedConv2D"
    node["attr"]["fused_ops"] = {"list": {"s": [base64.b64encode(b"Gelu").decode()]}}


def of_old(content: Any, _: Path) -> None:
    content["modelTopology"] = None


@pytest.mark.parametrize(
    ("edit", "says"),
    [
        (lose_a_shard, ["file of its weights is not there", "group1-shard1of1.bin"]),
        (cut_a_shard, ["of another length", "found 8 bytes"]),
        (climb_out, ["outside its folder", "elsewhere.bin"]),
        (drop_a_weight, ["lacks weights of the graph", "none for 5"]),
        (fuse_the_unknown, ["fused that is not known", "node conv", "found Gelu"]),
        (of_old, ["no model of TensorFlow.js", "modelTopology"]),
    ],
)
def test_damaged_graph_models_say_why(small, edit, says, tmp_path):
    folder = tmp_path / "web"
    folder.mkdir()
    content = {"modelTopology": topology(small), "weightsManifest": manifest(small.weights, folder)}
    edit(content, folder)
    (folder / "model.json").write_text(json.dumps(content))
    run = convert_command(f"tfjs:{folder}", "-o", tmp_path / "x.onnx", *SIZE)
    assert_one_line_error(run, "web", *says)


def code_inside(content: Any) -> None:
    content["modelTopology"]["model_config"]["config"]["layers"][1]["class_name"] = "Lambda"


def unknown_layer(content: Any) -> None:
    content["modelTopology"]["model_config"]["config"]["layers"][1]["class_name"] = "Own"


def another_name(content: Any) -> None:
    content["weightsManifest"][0]["weights"][0]["name"] = "other/kernel"


@pytest.mark.parametrize(
    ("edit", "says"),
    [
        (code_inside, ["code of its own", "found Lambda"]),
        (unknown_layer, ["Keras cannot build the model", "Own"]),
        (another_name, ["weights of the layer answer do not fit", "bias (3,)"]),
    ],
)
def test_layers_models_that_cannot_be_read_say_why(edit, says, tmp_path):
    content = layers_model(keras_models.sequential(), tmp_path)
    edit(content)
    (tmp_path / "model.json").write_text(json.dumps(content))
    run = convert_command(f"tfjs:{tmp_path}", "-o", tmp_path / "x.onnx", "--preprocess", "tf")
    assert_one_line_error(run, "tfjs:", *says)


def test_no_model_there(tmp_path):
    run = convert_command(f"tfjs:{tmp_path}", "-o", tmp_path / "x.onnx")
    assert_one_line_error(run, "no model of TensorFlow.js is there", "a folder without")
