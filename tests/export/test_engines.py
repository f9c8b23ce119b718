"""One predictor.onnx gives the same rates in every engine that the page of docs names."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx.reference import ReferenceEvaluator
from PIL import Image

from tests.browser import Page
from tests.export.engines import by_node, by_onnxruntime, by_openvino, by_web

pytestmark = pytest.mark.slow

#: Largest difference, in a site's standard deviation over the pictures.
TOLERANCE = 1e-3
KINDS = ["convolutional", "transformer"]


@pytest.fixture(scope="module", params=KINDS)
def model(request: pytest.FixtureRequest, predictor_folder: Callable[[str], Path]) -> Path:
    path: Path = predictor_folder(request.param) / "predictor.onnx"
    return path


@pytest.fixture(scope="module")
def expected(model: Path, pictures: list[Path]) -> np.ndarray:
    return by_onnxruntime(model, pictures)


def assert_same_rates(found: np.ndarray, expected: np.ndarray) -> None:
    assert found.shape == expected.shape
    deviation = expected.std(axis=0)
    assert (deviation > 1e-3).all()  # so that the rates say something of the pictures
    apart = (np.abs(found - expected) / deviation).max()
    print(f"{apart:.1e} standard deviations apart")
    assert apart < TOLERANCE


def test_node(model: Path, pictures: list[Path], expected: np.ndarray) -> None:
    assert_same_rates(by_node(model, pictures), expected)


def test_openvino(model: Path, pictures: list[Path], expected: np.ndarray) -> None:
    assert_same_rates(by_openvino(model, pictures), expected)


@pytest.mark.browser
def test_web(model: Path, pictures: list[Path], expected: np.ndarray, browser: Page) -> None:
    assert_same_rates(by_web(model, pictures, browser), expected)


def test_the_reference_evaluator_of_onnx(
    model: Path, pictures: list[Path], expected: np.ndarray
) -> None:
    pixels = np.asarray(Image.open(pictures[0]))[None]
    (rates,) = ReferenceEvaluator(onnx.load(model)).run(None, {"images": pixels})
    apart = np.abs(np.asarray(rates)[0] - expected[0]) / expected.std(axis=0)
    print(f"{apart.max():.1e} standard deviations apart")
    assert apart.max() < TOLERANCE


@pytest.mark.parametrize("kind", KINDS)
def test_the_models_are_what_they_are_called(
    kind: str, predictor_folder: Callable[[str], Path]
) -> None:
    """A readout with masks over positions, and the attention of a transformer."""
    graph = onnx.load(predictor_folder(kind) / "predictor.onnx").graph
    weights = {weight.name for weight in graph.initializer}
    operators = {node.op_type for node in graph.node}
    if kind == "convolutional":
        assert any("masks" in name for name in weights)
        assert {"Conv", "MaxPool", "Acos"} <= operators
    else:
        assert {"Softmax", "LayerNormalization", "Gelu"} <= operators
        assert "nrp/l2.weight" in weights
    assert "Resize" not in operators
