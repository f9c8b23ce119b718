"""The small pieces of an extraction, timed by pytest-benchmark: see `make bench`."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from nrp_onnx.activations.layer_file import StoredLayer
from nrp_onnx.activations.layer_writer import LayerRanges, LayerWriter, RangeWriter, join_ranges
from nrp_onnx.backbone.choose_layers import auto_layers
from nrp_onnx.backbone.feature_graph import Feature, build_feature_graph, to_checked_proto
from nrp_onnx.backbone.model import Backbone, load_backbone
from nrp_onnx.backbone.preprocessing import PRESETS
from nrp_onnx.backbone.reduction_nodes import sketch_plan
from nrp_onnx.backbone.reductions import read_reduction

N_FEATURES, ROWS = 50_176, 16
IDS = [f"stimulus{place}" for place in range(ROWS)]


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    """The graph of ResNet50 that the package onnx brings."""
    folder = Path(onnx.__file__).parent / "backend/test/data/light"
    return load_backbone(folder / "light_resnet50.onnx")


@pytest.fixture(scope="module")
def rows() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((ROWS, N_FEATURES), dtype=np.float32)


@pytest.mark.parametrize("reduction", ["none", "avgpool:2", "sketch:512"])
def test_graph_surgery(benchmark: Any, backbone: Backbone, reduction: str) -> None:
    spec = PRESETS["imagenet"].for_input(224, 224, "NCHW", "float32")
    features = [Feature(layer, read_reduction(reduction)) for layer in auto_layers(backbone)]
    graph = benchmark(
        lambda: to_checked_proto(build_feature_graph(backbone, spec, features), "graph")
    )
    assert len(graph.graph.output) == len(features)


def test_sketch_plan(benchmark: Any) -> None:
    order, _ = benchmark(sketch_plan, 802_816, 4096)
    assert len(order) == 802_816


def test_range_write(benchmark: Any, rows: np.ndarray, tmp_path: Path) -> None:
    layer = LayerRanges(tmp_path / "layer.parquet", N_FEATURES, {})
    with RangeWriter([layer], 0, ROWS, 1e9) as ranges:
        benchmark.pedantic(ranges.write, (IDS, [rows], ROWS), rounds=50, warmup_rounds=5)


def test_join(benchmark: Any, rows: np.ndarray, tmp_path: Path) -> None:
    layer = LayerRanges(tmp_path / "layer.parquet", N_FEATURES, {})

    def write_ranges() -> tuple[tuple[Any, ...], dict[str, Any]]:
        with RangeWriter([layer], 0, ROWS, 0) as ranges:
            for place in range(20):
                ranges.write(IDS, [rows], ROWS * (place + 1))
        return (ranges.finished, layer), {}

    benchmark.pedantic(join_ranges, setup=write_ranges, rounds=10)


def test_parquet_read(benchmark: Any, rows: np.ndarray, tmp_path: Path) -> None:
    writer = LayerWriter(tmp_path / "layer.parquet", N_FEATURES, {})
    for place in range(20):
        writer.write([f"{place}/{name}" for name in IDS], rows)
    writer.close()
    layer = StoredLayer(tmp_path / "layer.parquet", tuple(f"7/{name}" for name in IDS))
    found = benchmark(layer.read, np.arange(ROWS))
    np.testing.assert_array_equal(found, rows)
