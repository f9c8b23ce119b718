"""Weights in files beside the model: used, hashed, and never taken from elsewhere."""

import json
import os
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from nrp_onnx.backbone.model import load_backbone
from nrp_onnx.backbone.weight_files import save_model
from nrp_onnx.errors import ModelError
from tests.command_line import assert_user_error, nrp_onnx


@pytest.fixture
def external(tmp_path: Path) -> Path:
    """A network whose weights, even the target of its Reshape, lie in weights/big.data."""
    rng = np.random.default_rng(0)
    weights: dict[str, np.ndarray] = {
        "w": rng.standard_normal((8, 3, 3, 3)).astype(np.float32),
        "v": rng.standard_normal((8 * 30 * 30, 6)).astype(np.float32) / 80,
        "shape": np.array([1, 8 * 30 * 30]),
    }
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["conv"]),
        helper.make_node("Relu", ["conv"], ["relu"]),
        helper.make_node("Reshape", ["relu", "shape"], ["flat"]),
        helper.make_node("MatMul", ["flat", "v"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 32, 32])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 6])],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    folder = tmp_path / "model"
    (folder / "weights").mkdir(parents=True)
    onnx.save(
        model, folder / "model.onnx", save_as_external_data=True, location="weights/big.data",
        size_threshold=0,
    )  # fmt: skip
    return folder / "model.onnx"


def relocate(path: Path, location: str) -> None:
    proto = onnx.load(path, load_external_data=False)
    for entry in proto.graph.initializer[0].external_data:
        if entry.key == "location":
            entry.value = location
    path.write_bytes(proto.SerializeToString())


def run(path: Path, images: np.ndarray) -> np.ndarray:
    # With all data read in: ONNX Runtime does not look for a Reshape's target in another file.
    model = onnx.load(path).SerializeToString()
    session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
    outputs: np.ndarray = session.run(["y"], {"x": images})[0]
    return outputs


def test_convert_makes_one_file_that_computes_the_same(external: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.onnx"
    ran = nrp_onnx("convert", f"onnx:{external}", "-o", out, "--preprocess", "tf")
    assert (ran.returncode, ran.stderr) == (0, "")
    images = np.random.default_rng(1).standard_normal((3, 3, 32, 32)).astype(np.float32)
    expected = np.concatenate([run(external, images[i : i + 1]) for i in range(3)])
    assert not (tmp_path / "out.onnx.data").exists()
    np.testing.assert_allclose(run(out, images), expected, atol=1e-4)


def test_score_uses_external_weights(
    external: Path, recordings_folder: Path, tmp_path: Path
) -> None:
    ran = nrp_onnx(
        "score", external, "--recordings", recordings_folder, "-o", tmp_path / "run", "--search",
        "quick", "--folds", "2", "--preprocess", "tf", "--layers", "conv,y",
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["model"]["n_parameters"] == 8 * 27 + 8 * 900 * 6
    picture = next((recordings_folder).rglob("*.png"))
    external.rename(external.with_name("moved.onnx"))  # the predictor needs no file but its own
    ran = nrp_onnx("predict", tmp_path / "run" / "predictor.onnx", picture)
    assert ran.returncode == 0, ran.stderr


def test_the_hash_covers_the_external_data(external: Path) -> None:
    before = load_backbone(external).sha256
    data = external.parent / "weights" / "big.data"
    content = bytearray(data.read_bytes())
    content[2000] ^= 1
    data.write_bytes(content)
    assert load_backbone(external).sha256 != before


def test_over_the_limit_two_files_are_written_and_load_again(
    external: Path, tmp_path: Path
) -> None:
    backbone = load_backbone(external)
    out = tmp_path / "big" / "out.onnx"
    save_model(backbone.proto, out, external.parent, limit=10_000)
    assert sorted(file.name for file in out.parent.iterdir()) == ["out.onnx", "out.onnx.data"]
    onnx.checker.check_model(str(out), full_check=True)
    images = np.random.default_rng(1).standard_normal((1, 3, 32, 32)).astype(np.float32)
    np.testing.assert_array_equal(run(out, images), run(external, images))
    assert load_backbone(out).layers == backbone.layers
    save_model(backbone.proto, out, external.parent, limit=10_000)  # over itself
    assert len(list(out.parent.iterdir())) == 2


def test_paths_that_leave_the_folder_are_refused(external: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret.data"
    secret.write_bytes(bytes(10_000_000))
    (external.parent / "link.data").symlink_to(secret)
    (external.parent / "linked").symlink_to(tmp_path)
    for location in (
        "../secret.data", str(secret), "link.data", "linked/secret.data",
        "weights/../../secret.data", "C:\\secret.data", "..\\secret.data", "",
    ):  # fmt: skip
        relocate(external, location)
        with pytest.raises(ModelError, match="tensor w takes its numbers from outside"):
            load_backbone(external)
    relocate(external, "../secret.data")
    ran = nrp_onnx("convert", f"onnx:{external}", "-o", tmp_path / "x.onnx")
    assert_user_error(ran, "the tensor w", "outside the model's folder", "../secret.data")
    assert not (tmp_path / "x.onnx").exists()


def test_a_link_inside_the_folder_is_fine(external: Path) -> None:
    os.symlink("weights/big.data", external.parent / "link.data")
    expected = load_backbone(external).n_parameters
    relocate(external, "link.data")
    assert load_backbone(external).n_parameters == expected


def test_missing_and_truncated_data_are_refused(external: Path, tmp_path: Path) -> None:
    data = external.parent / "weights" / "big.data"
    data.write_bytes(data.read_bytes()[:-100])
    ran = nrp_onnx("convert", f"onnx:{external}", "-o", tmp_path / "x.onnx")
    assert_user_error(ran, "the data of the tensor", "not all there", "big.data of at least")
    data.unlink()
    assert_user_error(nrp_onnx("layers", external), "the tensor w is not there", "found nothing")


def test_a_length_that_does_not_fit_the_shape_is_refused(external: Path) -> None:
    proto = onnx.load(external, load_external_data=False)
    for entry in proto.graph.initializer[0].external_data:
        if entry.key == "length":
            entry.value = "4"
    external.write_bytes(proto.SerializeToString())
    with pytest.raises(ModelError, match="tensor w is damaged; expected 864 bytes; found 4"):
        load_backbone(external)


def test_external_data_in_nodes_and_subgraphs_are_checked_too(external: Path) -> None:
    proto = onnx.load(external, load_external_data=False)
    hidden = TensorProto(name="hidden", dims=[4], data_type=1, data_location=TensorProto.EXTERNAL)
    hidden.external_data.add(key="location", value="../../etc/passwd")
    branch = helper.make_graph([helper.make_node("Constant", [], ["c"], value=hidden)], "b", [], [])
    proto.graph.node.append(
        helper.make_node("If", ["y"], ["z"], then_branch=branch, else_branch=branch)
    )
    external.write_bytes(proto.SerializeToString())
    with pytest.raises(ModelError, match="tensor hidden takes its numbers from outside"):
        load_backbone(external)
