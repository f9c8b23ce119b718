"""What several test modules share: a small backbone, small recordings."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

SHARED = Path(__file__).parents[1] / ".." / "shared"


@pytest.fixture(scope="session", autouse=True)
def own_clusters() -> Iterator[None]:
    """Clusters of Ray that tests start are found by no other test, and they find no other."""
    with (
        # Not below pytest's folder: the path of a socket may have 107 bytes.
        tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as folder,
        mock.patch.dict(os.environ, {"RAY_TMPDIR": folder}),
    ):
        os.environ.pop("RAY_ADDRESS", None)
        yield


@pytest.fixture(scope="session")
def shared() -> Path:
    if not SHARED.is_dir():
        pytest.skip("the folder of real recordings and backbones is not beside the checkout")
    return SHARED


@pytest.fixture(scope="session")
def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(8, 12, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(12 * 8 * 8, 5),
    ).eval()


@pytest.fixture(scope="session")
def model_path(network: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from nrp_converters.torch.modules import convert
    from nrp_onnx.backbone.preprocessing import PRESETS

    path = tmp_path_factory.mktemp("model") / "small.onnx"
    convert(network, torch.zeros(1, 3, 32, 32), preprocessing=PRESETS["tf"]).save(path)
    return path


@pytest.fixture(scope="session")
def raw_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """images/*.png, stimuli.csv and rates.npy with the axes (site, stimulus, repetition)."""
    folder = tmp_path_factory.mktemp("raw")
    (folder / "images").mkdir()
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (40, 32, 32, 3), dtype=np.uint8)
    rows = ["stimulus_id,filename,object_name"]
    for i, image in enumerate(pixels):
        Image.fromarray(image).save(folder / "images" / f"im{i:02d}.png")
        rows.append(f"s{i},im{i:02d}.png,{'ab'[i % 2]}")
    (folder / "stimuli.csv").write_text("\n".join(rows) + "\n")
    drive = pixels.reshape(40, -1).astype(float) @ rng.standard_normal((32 * 32 * 3, 6)) / 4000
    rates = drive.T[:, :, None] + 0.3 * rng.standard_normal((6, 40, 4))
    rates[0, 0, 3] = np.nan
    np.save(folder / "rates.npy", rates)
    return folder


@pytest.fixture(scope="session")
def recordings_folder(raw_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from nrp_onnx.recordings import import_arrays

    folder = tmp_path_factory.mktemp("recordings") / "small"
    import_arrays(
        raw_data / "images",
        raw_data / "rates.npy",
        folder,
        axes=["site", "stimulus", "repetition"],
        region="V4",
        stimuli=raw_data / "stimuli.csv",
        name="small",
    )
    return folder
