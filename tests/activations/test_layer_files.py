"""Each layer has a file of its own, and what is read from it is what was asked for."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch.nn import functional

from nrp_onnx.activations.images import ImageFolder
from nrp_onnx.activations.layer_file import StoredLayer, layer_path, stored_facts
from nrp_onnx.api import extract_with, score_with
from nrp_onnx.errors import OutputError
from nrp_onnx.notes import Notes
from nrp_onnx.scoring.options import ScoreOptions
from tests.activations.conftest import options

LONG = "n" * 245


def two_layers(path: Path, first: str, second: str) -> list[np.ndarray]:
    """Write a network of two convolutions whose outputs have these names; its weights."""
    rng = np.random.default_rng(0)
    weights = [rng.standard_normal(shape).astype(np.float32) for shape in ((4, 3), (6, 4), (6, 5))]
    weights[:2] = [w[:, :, None, None] for w in weights[:2]]
    nodes = [
        helper.make_node("Conv", ["x", "w0"], ["c0"]),
        helper.make_node("Relu", ["c0"], [first]),
        helper.make_node("Conv", [first, "w1"], ["c1"]),
        helper.make_node("Relu", ["c1"], [second]),
        helper.make_node("GlobalAveragePool", [second], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("MatMul", ["flat", "w2"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "two",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3, 12, 12])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 5])],
        [numpy_helper.from_array(w, f"w{place}") for place, w in enumerate(weights)],
    )
    opset = helper.make_opsetid("", 17)
    onnx.save(helper.make_model(graph, opset_imports=[opset], ir_version=8), path)
    return weights


def expected_rows(images: Path, weights: list[np.ndarray]) -> list[np.ndarray]:
    """What PyTorch makes of the images of 32 x 32 pixels, of both layers; the other images are NaN."""
    from PIL import Image

    found: list[list[np.ndarray]] = [[], []]
    for path in ImageFolder(images).stimulus_paths:
        image = Image.open(path).convert("RGB")
        x = torch.from_numpy(np.asarray(image, np.float32) / 127.5 - 1).permute(2, 0, 1)[None]
        x = functional.interpolate(x, (12, 12), mode="bilinear", antialias=True)
        first = functional.conv2d(x, torch.from_numpy(weights[0])).relu()
        second = functional.conv2d(first, torch.from_numpy(weights[1])).relu()
        for rows, layer in zip(found, (first, second), strict=True):
            rows.append(layer.flatten().numpy())
    return [np.stack(rows) for rows in found]


@pytest.mark.parametrize(
    ("first", "second"), [("a/b", "a_b"), ("a_b", "a b"), (LONG, LONG[:-1]), ("a/b", "a:b")]
)
def test_layers_whose_names_are_alike(
    images: Path, tmp_path: Path, first: str, second: str
) -> None:
    """In one run and in two, where the second must not take the first one's file for its own."""
    weights = two_layers(tmp_path / "model.onnx", first, second)
    ids = ImageFolder(images).stimulus_ids
    expected = expected_rows(images, weights)
    chosen = options(layers=f"{first},{second}")
    both = extract_with(tmp_path / "model.onnx", images, tmp_path / "both", chosen)
    for name in (second, first):
        extract_with(tmp_path / "model.onnx", images, tmp_path / "one", options(layers=name))
    for layer, rows in zip(both.values(), expected, strict=True):
        for folder in ("both", "one"):
            found = StoredLayer(tmp_path / folder / layer.path.name, ids).read(np.arange(len(ids)))
            np.testing.assert_allclose(found, rows, atol=2e-5)
    notes = Notes()
    extract_with(tmp_path / "model.onnx", images, tmp_path / "both", chosen, notes)
    assert any("nothing is extracted" in note for note in notes.said)


@pytest.mark.parametrize("name", ["1", "layer4.0.conv1", "Conv_1-bn#2", "x" * 200])
def test_plain_names_are_kept(name: str) -> None:
    assert layer_path(Path("folder"), name) == Path(f"folder/{name}.parquet")


def test_names_of_files_are_unlike_each_other_and_valid() -> None:
    names = ["a/b", "a_b", "a b", "a//b", "/a", "_a", "", "..", "../x", "é", "e", LONG, LONG + "n"]
    names += ["n" * 200, "n" * 201, "a\nb", "a\x1bb"]
    # The file of one is no other layer's, not even of one that is called like it.
    names += [layer_path(Path(), name).name.removesuffix(".parquet") for name in ("a/b", LONG)]
    files = [layer_path(Path("folder"), name) for name in names]
    assert len({path.name.casefold() for path in files}) == len(names)
    for path in files:
        assert path.parent == Path("folder")
        assert len(path.name.encode()) <= 210
        assert set(path.name) <= set(
            "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._#-~"
        )


def test_what_is_read_is_checked(model_path: Path, images: Path, tmp_path: Path) -> None:
    """When the layer is opened, and again when it is read: another run may have replaced the file."""
    ids = ImageFolder(images).stimulus_ids
    extract_with(model_path, images, tmp_path, options(layers="1", reduce="avgpool:2"))
    facts = stored_facts(tmp_path / "1.parquet")
    assert facts is not None
    layer = StoredLayer(tmp_path / "1.parquet", ids, facts["fingerprint"])
    before = layer.read(np.arange(len(ids)))
    # The same shape, of other activations.
    changed = options(layers="1", reduce="avgpool:2", preprocess="caffe", overwrite=True)
    extract_with(model_path, images, tmp_path, changed)
    for read in (
        lambda: layer.read(np.arange(3)),
        lambda: next(layer.blocks()),
        lambda: next(layer.feature_blocks(4)),
        lambda: StoredLayer(tmp_path / "1.parquet", ids, facts["fingerprint"]),
    ):
        with pytest.raises(OutputError, match=r"1\.parquet: .*other activations.*fingerprint"):
            read()
    extract_with(
        model_path, images, tmp_path, options(layers="1", reduce="avgpool:2", overwrite=True)
    )
    np.testing.assert_array_equal(layer.read(np.arange(len(ids))), before)


def test_a_score_does_not_replace_other_activations(
    model_path: Path, recordings_folder: Path, tmp_path: Path
) -> None:
    """Nor the principal components beside them; told so, it does."""
    store = tmp_path / "store"
    common = {"search": "quick", "report": False, "device": "cpu", "activations": store}

    def run(name: str, **more: object) -> None:
        given = ScoreOptions(**common, layers="1", **more)  # type: ignore[arg-type]
        score_with(model_path, str(recordings_folder), tmp_path / name, given)

    def content() -> dict[str, bytes]:
        return {str(path): path.read_bytes() for path in store.rglob("*.parquet")}

    run("first", reduce="pca:3")
    before = content()
    assert len(before) == 2
    for reduction in ("mean", "pca:4"):
        with pytest.raises(OutputError, match=r"1\.parquet: .*other activations.*--overwrite"):
            run(f"with {reduction}", reduce=reduction)
        assert content() == before
    run("third", reduce="pca:3", seed=1)  # the same activations
    assert content() == before
    run("with pca:4", reduce="pca:4", overwrite=True)
    assert content() != before
    with pytest.raises(OutputError, match=r"other activations.*overwrite=True in Python"):
        run("fourth", reduce="pca:3")
