"""Images of two sizes, and an extraction of two layers from them."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nrp_onnx.activations.layer_file import StoredLayer
from nrp_onnx.api import extract_with
from nrp_onnx.scoring.options import ExtractOptions


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """70 PNG files, every third of them larger and in grey."""
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for place in range(70):
        shape = (40, 50) if place % 3 == 0 else (32, 32, 3)
        Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8)).save(
            folder / f"{place:02d}.png"
        )
    return folder


@pytest.fixture(scope="session")
def activations(model_path: Path, images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the layers 1 and 3 of the small network, unreduced."""
    folder = tmp_path_factory.mktemp("activations")
    extract_with(model_path, images, folder, options())
    return folder


def options(**changed: object) -> ExtractOptions:
    given: dict[str, object] = {
        "layers": "1,3",
        "reduce": "none",
        "preprocess": "tf",
        "device": "cpu",
    }
    return ExtractOptions(**{**given, **changed})  # type: ignore[arg-type]


def rows(path: Path, stimulus_ids: tuple[str, ...]) -> np.ndarray:
    """All activations in a layer's file, in this order."""
    return StoredLayer(path, stimulus_ids).read(np.arange(len(stimulus_ids)))
