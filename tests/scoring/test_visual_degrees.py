"""How large images are shown to the model, through the command line."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pandas as pd
import pytest
import torch
from PIL import Image
from torch import nn

from tests.backbone.test_backbone import on_screen
from tests.command_line import assert_user_error, nrp_onnx

#: Together they take over ten seconds of a core.
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def shown(recordings_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small recordings, whose images filled 8 degrees."""
    folder = tmp_path_factory.mktemp("shown") / "recordings"
    shutil.copytree(recordings_folder, folder)
    facts = json.loads((folder / "recordings.json").read_text())
    (folder / "recordings.json").write_text(json.dumps({**facts, "visual_degrees": 8}))
    return folder


@pytest.mark.parametrize("degrees", [12, 6])
def test_the_predictor_carries_what_was_scored(
    shown: Path, network: nn.Sequential, model_path: Path, tmp_path: Path, degrees: float
) -> None:
    run = nrp_onnx(
        "score", model_path, "--recordings", shown, "-o", tmp_path / "out", "--search", "quick",
        "--layers", "3", "--reduce", "none", "--visual-degrees", degrees, "--json",
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    what = "in the middle of a grey field of 12" if degrees == 12 else "the middle 6 are shown"
    assert what in run.stderr
    result = json.loads(run.stdout)
    assert result["recordings"]["visual_degrees"] == 8
    assert result["model"]["visual_degrees"] == pytest.approx(degrees)
    assert result["model"]["preprocessing"]["visual_degrees_ratio"] == degrees / 8
    assert any(what in note for note in result["notes"])

    files = pd.read_csv(shown / "stimuli.csv").set_index("stimulus_id")["filename"]
    images = {name: Image.open(shown / "stimuli" / file) for name, file in files.items()}
    stored = pd.read_parquet(tmp_path / "out" / "activations" / "3.parquet")
    stored = stored.set_index("stimulus_id")["activation"]
    for name in list(images)[:5]:
        screen = on_screen(images[name], degrees / 8).resize((32, 32), Image.Resampling.BILINEAR)
        x = torch.from_numpy(np.array(screen)).permute(2, 0, 1)[None].float() / 127.5 - 1
        with torch.no_grad():
            expected = network[:4](x).flatten().numpy()
        # Pillow's pixels are whole numbers.
        np.testing.assert_allclose(stored[name], expected, atol=0.02)

    table = pd.read_parquet(tmp_path / "out" / "predictions.parquet")
    held_out = table[table["fold"] == 0]
    session = ort.InferenceSession(
        tmp_path / "out" / "predictor.onnx", providers=["CPUExecutionProvider"]
    )
    pixels = np.stack([np.asarray(images[name]) for name in held_out["stimulus_id"]])
    rates = session.run(None, {"images": pixels})[0]
    np.testing.assert_allclose(rates, np.stack(held_out["nrp+ridge"].to_list()), atol=1e-3)


def test_left_open_images_fill_the_model(
    shown: Path, recordings_folder: Path, model_path: Path, tmp_path: Path
) -> None:
    results: list[dict[str, Any]] = []
    for folder in (shown, recordings_folder):
        out = tmp_path / str(len(results))
        run = nrp_onnx(
            "score", model_path, "--recordings", folder, "-o", out, "--search", "quick",
            "--layers", "3", "--folds", 2, "--json",
        )  # fmt: skip
        assert run.returncode == 0, run.stderr
        assert ("the model sees the 8 degrees" in run.stderr) == (folder == shown)
        results.append(json.loads(run.stdout))
    assert results[0]["model"]["visual_degrees"] == 8
    assert results[1]["model"]["visual_degrees"] is None
    assert results[0]["nrp_error"] == results[1]["nrp_error"]


def test_degrees_that_make_no_sense(
    shown: Path, recordings_folder: Path, model_path: Path, tmp_path: Path
) -> None:
    given = ("score", model_path, "-o", tmp_path / "out", "--visual-degrees")
    run = nrp_onnx(*given, 8, "--recordings", recordings_folder)
    assert_user_error(run, "--visual-degrees", "do not say how large", "recordings.json")
    run = nrp_onnx(*given, 0, "--recordings", shown)
    assert_user_error(run, "--visual-degrees", "over 0 and at most 180", "found 0")
