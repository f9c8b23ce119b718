"""Sketch, principal components, class token and rules a layer, against independent computations."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pandas as pd
import pytest
import torch
from sklearn.decomposition import PCA

from nrp_onnx.api import extract_with
from nrp_onnx.backbone import reduction_nodes
from nrp_onnx.backbone.feature_graph import Feature, build_feature_graph, to_checked_proto
from nrp_onnx.backbone.layers import Layer, grid_of
from nrp_onnx.backbone.model import load_backbone
from nrp_onnx.backbone.preprocessing import PRESETS
from nrp_onnx.backbone.reductions import (
    Reduction,
    choose_reductions,
    fit_components,
    read_reduction,
)
from nrp_onnx.errors import OptionError
from nrp_onnx.notes import Notes
from tests.activations.conftest import options, rows

TOKENS = Layer("tokens", "tokens", (36, 48), "NTC", "Reshape", 1)
#: No square after up to eight other tokens.
WORDS = Layer("words", "words", (34, 48), "NTC", "Reshape", 1)


@pytest.fixture(scope="module")
def two_layers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A backbone whose layers are its input, 24 x 24, and the same numbers as 36 tokens of 48."""
    make = onnx.helper
    shape = onnx.numpy_helper.from_array(np.array([-1, 36, 48]), "shape")
    longer = onnx.numpy_helper.from_array(np.array([-1, 27, 64]), "longer")
    one = onnx.numpy_helper.from_array(np.ones(1, np.float32), "one")
    nodes = [
        make.make_node("Mul", ["x", "one"], ["map"]),
        make.make_node("Reshape", ["map", "shape"], ["moved"]),
        make.make_node("Mul", ["moved", "one"], ["tokens"]),
        make.make_node("Reshape", ["map", "longer"], ["moved27"]),
        make.make_node("Mul", ["moved27", "one"], ["tokens27"]),
    ]
    graph = make.make_graph(
        nodes,
        "two_layers",
        [make.make_tensor_value_info("x", 1, ["batch", 3, 24, 24])],
        [
            make.make_tensor_value_info("tokens", 1, ["batch", 36, 48]),
            make.make_tensor_value_info("tokens27", 1, ["batch", 27, 64]),
        ],
        [one, shape, longer],
    )
    path = tmp_path_factory.mktemp("model") / "two_layers.onnx"
    onnx.save(make.make_model(graph, opset_imports=[make.make_opsetid("", 18)]), path)
    return path


def reduced(path: Path, name: str, choice: str, images: np.ndarray) -> np.ndarray:
    backbone = load_backbone(path)
    (layer,) = [layer for layer in backbone.layers if layer.name == name]
    spec = PRESETS["raw"].for_input(24, 24, "NCHW", "float32")
    feature = Feature(layer, read_reduction(choice))
    proto = to_checked_proto(build_feature_graph(backbone, spec, [feature]), "graph")
    session = ort.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    found: np.ndarray = session.run([name], {"images": images})[0]
    assert found.shape == (len(images), feature.n_features)
    return found


def test_the_sketch_is_a_balanced_matrix_of_signs(two_layers: Path) -> None:
    """Read off by sketching every unit vector."""
    n, size = 24 * 24 * 3, 100
    units = np.zeros((n, 24, 24, 3), np.uint8)
    units.reshape(n, n)[np.arange(n), np.arange(n)] = 1
    matrix = reduced(two_layers, "map", f"sketch:{size}", units)
    assert set(np.unique(matrix)) == {-1, 0, 1}
    assert (np.abs(matrix).sum(axis=1) == 1).all()  # each feature is in one bucket
    filled = np.abs(matrix).sum(axis=0)
    assert filled.max() == 18  # 1,728 features in 100 buckets
    assert filled.min() >= 17
    assert abs(matrix.sum()) < 4 * np.sqrt(n)  # as many minuses as plusses, by chance
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (5, 24, 24, 3), dtype=np.uint8)
    np.testing.assert_allclose(
        reduced(two_layers, "map", f"sketch:{size}", pixels),
        pixels.reshape(5, n).astype(np.float32) @ matrix,
        rtol=1e-5,
    )


def test_the_sketch_keeps_inner_products(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the mean, and with the variance that is documented, over 2,000 seeds."""
    n, size = 600, 50
    rng = np.random.default_rng(1)
    x = np.maximum(rng.standard_normal(n), 0)
    pairs = [(x, x), (x, np.maximum(rng.standard_normal(n), 0)), (np.ones(n), np.ones(n))]
    found = np.empty((2000, len(pairs)))
    for seed in range(len(found)):
        monkeypatch.setattr(reduction_nodes, "SEED", seed)
        order, signs = reduction_nodes.sketch_plan(n, size)
        for place, pair in enumerate(pairs):
            a, b = ((v[order] * signs).reshape(-1, size).sum(axis=0) for v in pair)
            found[seed, place] = a @ b
    for place, (a, b) in enumerate(pairs):
        exact, bound = a @ b, ((a @ a) * (b @ b) + (a @ b) ** 2) / size
        error = found[:, place] - exact
        assert abs(error.mean()) < 4 * np.sqrt(bound / len(found))
        assert 0.7 * bound < error.var() < 1.1 * bound  # p is a little below 1 / D
        for delta in (0.1, 0.3):
            off = np.abs(error) > np.sqrt(2 / (delta * size)) * np.sqrt((a @ a) * (b @ b))
            assert off.mean() <= delta


def test_the_sketch_does_not_change_from_version_to_version() -> None:
    """The first numbers of PCG64 with the seed 0, in the order of their size."""
    draws = np.random.PCG64(reduction_nodes.SEED).random_raw(6)
    order, signs = reduction_nodes.sketch_plan(6, 4)
    assert list(order[:6]) == sorted(range(6), key=lambda place: int(draws[place]))
    assert list(signs) == [1 if int(draws[p]) % 2 else -1 for p in order[:6]] + [0, 0]


def test_the_class_token_is_the_first(two_layers: Path) -> None:
    pixels = np.random.default_rng(2).integers(0, 256, (3, 24, 24, 3), dtype=np.uint8)
    tokens = pixels.transpose(0, 3, 1, 2).reshape(3, 36, 48)
    np.testing.assert_array_equal(reduced(two_layers, "tokens", "cls", pixels), tokens[:, 0])
    np.testing.assert_allclose(
        reduced(two_layers, "tokens", "mean", pixels), tokens.mean(axis=1), rtol=1e-5
    )


@pytest.mark.parametrize(
    ("name", "shape", "extra"), [("tokens", (36, 48), 0), ("tokens27", (27, 64), 2)]
)
@pytest.mark.parametrize("k", [2, 3, 7])
def test_tokens_are_pooled_as_a_map_of_their_patches(
    name: str, shape: tuple[int, int], extra: int, k: int, two_layers: Path
) -> None:
    """As torch pools the square of patches, without the tokens before them."""
    pixels = np.random.default_rng(4).integers(0, 256, (3, 24, 24, 3), dtype=np.uint8)
    tokens = pixels.transpose(0, 3, 1, 2).reshape(3, *shape).astype(np.float32)[:, extra:]
    side = int(np.sqrt(tokens.shape[1]))
    maps = torch.from_numpy(tokens.transpose(0, 2, 1).reshape(3, shape[1], side, side).copy())
    expected = torch.nn.functional.adaptive_avg_pool2d(maps, min(k, side)).flatten(1).numpy()
    np.testing.assert_allclose(
        reduced(two_layers, name, f"avgpool:{k}", pixels), expected, rtol=1e-5
    )


@pytest.mark.parametrize(
    ("shape", "layout", "expected"),
    [
        ((8, 3, 5), "NCHW", (3, 5, 8, 0)),
        ((3, 5, 8), "NHWC", (3, 5, 8, 0)),
        ((197, 12), "NTC", (14, 14, 12, 1)),
        ((201, 12), "NTC", (14, 14, 12, 5)),
        ((206, 12), "NTC", None),
        ((8, 1, 1), "NCHW", None),
        ((8,), "NC", None),
    ],
)
def test_which_axes_are_space(
    shape: tuple[int, ...], layout: str, expected: tuple[int, ...] | None
) -> None:
    grid = grid_of(shape, layout)
    if expected is None:
        assert grid is None
        return
    assert grid is not None
    assert (grid.height, grid.width, grid.channels, grid.extra) == expected
    rows = np.random.default_rng(5).standard_normal((2, *shape))
    maps = (
        {"NCHW": rows.transpose(0, 2, 3, 1), "NHWC": rows}.get(layout) if len(shape) == 3 else None
    )
    if maps is None:
        maps = rows[:, grid.extra :].reshape(2, grid.height, grid.width, grid.channels)
    at = grid.by_position(rows.reshape(2, -1)).reshape(2, grid.height, grid.width, grid.channels)
    np.testing.assert_array_equal(at, maps)
    assert grid.centres()[grid.width] == pytest.approx((0.5 / grid.width, 1.5 / grid.height))


def test_components_are_those_of_scikit_learn() -> None:
    x = np.random.default_rng(3).standard_normal((40, 30)).astype(np.float32) * np.arange(1, 31)
    expected = PCA(4, svd_solver="full").fit(x)
    found = fit_components(x.astype(np.float32), 4)
    np.testing.assert_allclose(found.mean, expected.mean_, atol=1e-5)
    agreement = (found.directions.T * expected.components_).sum(axis=1)
    np.testing.assert_allclose(np.abs(agreement), 1, atol=1e-5)


def test_pca_in_the_graph_is_scikit_learn_s(
    model_path: Path, images: Path, activations: Path, tmp_path: Path
) -> None:
    notes = Notes()
    found = extract_with(model_path, images, tmp_path, options(reduce="3=pca:6,1=mean"), notes)
    assert [layer.shape for layer in found.values()] == [(8,), (6,)]
    assert any(
        "fitted on 70 images" in note and "without any response" in note for note in notes.said
    )
    ids = tuple(pd.read_parquet(tmp_path / "3.parquet")["stimulus_id"])
    expected = PCA(6, svd_solver="full").fit_transform(
        rows(activations / "3.parquet", ids).astype(np.float64)
    )
    scores = rows(tmp_path / "3.parquet", ids)
    signs = np.sign((scores * expected).sum(axis=0))
    np.testing.assert_allclose(scores, expected * signs, atol=1e-4)
    before = (tmp_path / "components" / "3.parquet").stat().st_mtime_ns
    extract_with(model_path, images, tmp_path, options(reduce="3=pca:6,1=mean"))
    assert (tmp_path / "components" / "3.parquet").stat().st_mtime_ns == before
    assert not (tmp_path / ".sample").exists()


def test_more_components_than_images(model_path: Path, images: Path, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"pca:70, 3: too few components.*span 69 directions"):
        extract_with(model_path, images, tmp_path, options(layers="3", reduce="pca:70"))


LAYERS = [
    Layer("layer1.0", "a", (8, 4, 4), "NCHW", "Relu", 0),
    Layer("layer4.0[2]", "b", (4, 4, 8), "NHWC", "Relu", 1),
    TOKENS,
    Layer("fc", "c", (10,), "NC", "Gemm", 3),
]


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ("mean", ["mean", "mean", "mean", "none"]),
        ("sketch:16", ["sketch:16", "sketch:16", "sketch:16", "none"]),
        ("layer1*=avgpool:2,tokens=cls,*=none", ["avgpool:2", "none", "cls", "none"]),
        ("layer4.0[2]=mean, tokens=pca:3, fc=none", ["none", "mean", "pca:3", "none"]),
        ("*=mean,layer1.0=none", ["mean", "mean", "mean", "none"]),
    ],
)
def test_rules(choice: str, expected: list[str]) -> None:
    found = choose_reductions(choice, LAYERS, 10, "model.onnx")
    assert [str(reduction) for reduction in found] == expected


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ("pool", r"no such reduction; expected auto, none, avgpool:K.*found 'pool'"),
        ("sketch", r"no such reduction"),
        ("pca:0", r"no such reduction"),
        ("layer1*=mean,fx=none", r"no chosen layer fits the pattern.*fc.*found 'fx'"),
        ("avgpool:2", r"words has tokens that are no square of patches"),
        ("cls", r"layer1\.0 has a map, no tokens"),
    ],
)
def test_wrong_rules(choice: str, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        choose_reductions(choice, [*LAYERS, WORDS], 10, "model.onnx")


def test_auto_is_for_what_no_rule_names() -> None:
    large = replace(LAYERS[0], name="large", shape=(64, 112, 112))
    found = choose_reductions("fc=none", [large, LAYERS[3]], 100_000, "model.onnx")
    assert found == [Reduction("avgpool", 4), Reduction("none")]
