"""Predictors that several modules export from, and pictures of many sizes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from tests.browser import NAMES, Page, find_chromium, open_browser
from tests.command_line import nrp_onnx
from tests.converters.models import TokenNet, randomise_batch_norms

#: Width and height of the pictures.
SIZES = [
    (100, 80), (80, 100), (128, 128), (150, 110), (200, 90), (97, 211), (256, 192), (300, 300),
    (320, 240), (333, 251), (400, 130), (480, 640), (640, 427), (800, 600), (1024, 768), (1200, 900),
]  # fmt: skip
#: The share of the path beside the network is given, so that both are in the graph: on few images of
#: noise the mean response may be best, whose rates are the same for all images.
_SHARED = {"linear_shares": [0.5], "max_epochs": 3, "learning_rates": [8e-3]}
_SEARCHES = {
    "convolutional": {
        "sizes": [[6, 0]], "masks": ["gaussian"], "components": 2, "channels": 4, "masked": True,
    },
    "transformer": {"sizes": [[8, 6]], "members": 2},
}  # fmt: skip
_LAYERS = {"convolutional": "2,5", "transformer": "attention,mlp"}


@pytest.fixture(scope="session")
def run_folder(
    model_path: Path, recordings_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The small recordings, a fifth of them held out once."""
    out = tmp_path_factory.mktemp("exported") / "run"
    run = nrp_onnx(
        "score", model_path, "--recordings", recordings_folder, "-o", out, "--search", "quick",
        "--protocol", "paper", "--no-report",
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    return out


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """PNG files of `SIZES`: smooth colours, of another contrast and brightness each, under noise."""
    folder = tmp_path_factory.mktemp("pictures")
    paths = []
    for place, (width, height) in enumerate(SIZES):
        rng = np.random.default_rng(place)
        blocks = rng.uniform(0, 255, (4 + place % 5, 3 + place % 4, 3))
        coarse = Image.fromarray(blocks.astype(np.uint8)).resize(
            (width, height), Image.Resampling.BICUBIC
        )
        pixels = rng.uniform(0.4, 1) * (np.asarray(coarse) - 128.0) + rng.uniform(90, 160)
        pixels += rng.normal(0, 12, pixels.shape)
        paths.append(folder / f"p{place:02d}.png")
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(paths[-1], compress_level=1)
    return paths


@pytest.fixture(scope="session")
def predictor_folder(
    recordings_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Path]:
    """Of ``convolutional`` or ``transformer``: a folder with predictor.onnx and predictor.json."""
    from nrp_converters.torch.modules import convert
    from nrp_onnx.backbone.preprocessing import PRESETS
    from nrp_onnx.recordings import load_recordings, save_recordings

    desk = tmp_path_factory.mktemp("embedded")
    recordings = load_recordings(recordings_folder)
    # The order of the sites is not that of the regions.
    regions = ("V4", "IT", "V4", "V4", "IT", "V4")
    save_recordings(replace(recordings, regions=regions, units="spikes/s"), desk / "recordings")

    def made(kind: str) -> Path:
        run = desk / kind
        if run.exists():
            return run
        torch.manual_seed(0)
        if kind == "convolutional":
            network: nn.Module = nn.Sequential(
                nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8), nn.ReLU(),
                nn.MaxPool2d(2), nn.Conv2d(8, 12, 3, padding=1), nn.ReLU(),
            )  # fmt: skip
            randomise_batch_norms(network)
            preprocessing = PRESETS["imagenet"]
        else:
            # Bicubic, the shorter edge, and a cut from the middle.
            network = TokenNet()
            preprocessing = replace(PRESETS["tf"], size=36, crop_size=(32, 32), resample=3)
        convert(network.eval(), torch.zeros(1, 3, 32, 32), preprocessing=preprocessing).save(
            desk / f"{kind}.onnx"
        )
        search = desk / f"{kind}.json"
        search.write_text(json.dumps(_SHARED | _SEARCHES[kind]))
        scored = nrp_onnx(
            "score", desk / f"{kind}.onnx", "--recordings", desk / "recordings", "-o", run,
            "--search", search, "--layers", _LAYERS[kind], "--folds", 2, "--no-report",
        )  # fmt: skip
        assert scored.returncode == 0, scored.stderr
        return run

    return made


@pytest.fixture(scope="module")
def browser() -> Iterator[Page]:
    chromium = find_chromium()
    if chromium is None:
        pytest.skip(f"no Chromium on this machine (looked for {', '.join(NAMES)})")
    with open_browser(chromium) as page:
        yield page
