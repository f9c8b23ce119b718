"""FGSM of the study of robustness: against FGSM written out in PyTorch, and models without gradients."""

import json
from pathlib import Path

import numpy as np
import onnx
import pandas as pd
import pytest
import torch
from onnx import numpy_helper
from PIL import Image
from torch import nn
from torch.nn import functional as F

from nrp_converters.torch.modules import convert
from nrp_onnx.backbone.preprocessing import PRESETS, Preprocessing
from nrp_onnx.errors import OptionError
from nrp_onnx.recordings import load_recordings, simulate_recordings
from nrp_onnx.scoring.options import ScoreOptions
from nrp_onnx.studies.gradients import Fgsm
from nrp_onnx.studies.robustness import study_robustness
from tests.command_line import nrp_onnx

pytestmark = pytest.mark.slow

EPS = (1.0, 4.0)
FACTORY = """
import torch
from torch import nn

def network():
    torch.manual_seed({seed})
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, stride=2), nn.ReLU(), nn.Conv2d(6, 8, 3, stride=2), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5),
    ).eval()
"""


def _network(seed: int = 0) -> nn.Module:
    scope: dict[str, object] = {}
    exec(FACTORY.format(seed=seed), scope)
    module = scope["network"]()  # type: ignore[operator]
    assert isinstance(module, nn.Module)
    return module


def _normalised(pixels: torch.Tensor, spec: Preprocessing) -> torch.Tensor:
    """(n, 3, H, W) grey levels, RGB, to what the network takes."""
    mean, std = (torch.tensor(x).view(1, 3, 1, 1) for x in (spec.image_mean, spec.image_std))
    x = (pixels * spec.rescale_factor - mean) / std
    return x.flip(1) if spec.channel_order == "BGR" else x


@pytest.mark.parametrize("preset", ["imagenet", "caffe"])
def test_fgsm_is_that_of_pytorch(preset: str, tmp_path: Path) -> None:
    spec, module = PRESETS[preset], _network()
    model = tmp_path / "own.onnx"
    convert(module, torch.zeros(1, 3, 32, 32), preprocessing=spec).save(model)
    simulate_recordings(tmp_path / "recordings", 30)
    recordings = load_recordings(tmp_path / "recordings")
    for path in recordings.stimulus_paths:  # of the network's size, so that nothing resizes them
        Image.open(path).convert("RGB").resize((32, 32)).save(path)
    study = study_robustness(
        [model], recordings, tmp_path / "study", [8.0], 30,
        ScoreOptions(search="quick", folds=3, device="cpu", layers="1,3", reduce="none"),
        EPS, {"own": module},
    )  # fmt: skip

    images = [np.asarray(Image.open(path)) for path in recordings.stimulus_paths]
    pixels = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float()
    moving = pixels.clone().requires_grad_()
    scores = module(_normalised(moving, spec))
    F.cross_entropy(scores, scores.argmax(1), reduction="sum").backward()
    assert moving.grad is not None

    def activations(x: torch.Tensor, depth: int) -> np.ndarray:
        with torch.no_grad():
            found = module[: depth + 1](_normalised(x, spec))  # type: ignore[index]
        return np.asarray(found.flatten(1).double())

    (record,) = study["models"]
    for eps in EPS:
        attacked = (pixels + eps * moving.grad.sign()).clamp(0, 255)
        expected = {}
        for name in ("1", "3"):
            f, g = (activations(x, int(name)) for x in (pixels, attacked))
            pairs = [np.linalg.norm(f[i] - f[j]) for i in range(30) for j in range(i)]
            expected[name] = np.linalg.norm(g - f, axis=1).mean() / np.mean(pairs)
        found = record["fgsm"][f"{eps:g}"]
        assert found["layers"] == pytest.approx(expected, rel=1e-4)
        assert found["value"] == pytest.approx(np.mean(list(expected.values())), rel=1e-4)
        assert found["ci95"][0] <= found["value"] <= found["ci95"][1]
    assert study["fgsm"] == {"levels": [1, 4], "rank_correlation": {"1": None, "4": None}}


def test_images_are_resized_and_cropped_first() -> None:
    spec = Preprocessing(
        size=40, crop_size=(32, 32), rescale_factor=1 / 255, layout="NHWC", dtype="float32",
        channel_order="BGR",
    )  # fmt: skip

    def gradient(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return np.zeros((len(x), 2)), np.array([1.0, 0.0, -1.0]) * np.ones_like(x)

    fgsm = Fgsm([3.0], spec, gradient)
    large = np.random.default_rng(0).integers(0, 256, (80, 100, 3), dtype=np.uint8)
    small = np.full((40, 40, 3), 254, np.uint8)
    (first, second) = fgsm.prepared([large, small])
    expected = Image.fromarray(large).resize((50, 40), Image.Resampling.BILINEAR)
    np.testing.assert_allclose(first, np.asarray(expected.crop((9, 4, 41, 36))), atol=1)
    assert second.shape == (32, 32, 3)
    ((_, changed),) = fgsm.changed([first, second], [0, 1])
    # The gradient is in the network's order, B G R: red falls, blue rises and is clipped.
    assert np.unique(changed.reshape(-1, 3), axis=0).tolist() == [[251, 254, 255]]


def test_models_without_gradients_are_said_and_left_empty(
    recordings_folder: Path, tmp_path: Path
) -> None:
    files = {}
    for seed, name in enumerate(("first", "second")):
        source = tmp_path / f"{name}.py"
        source.write_text(FACTORY.format(seed=seed))
        files[name] = tmp_path / f"{name}.onnx"
        run = nrp_onnx(
            "convert", f"torch:{source}:network", "--preprocess", "tf", "--input-size", "32",
            "-o", files[name],
        )  # fmt: skip
        assert run.returncode == 0, run.stderr
    # One whose source has other weights than the file, and one that says nothing of its source.
    for name in ("retrained", "unknown"):
        proto = onnx.load(files["first"])
        for tensor in proto.graph.initializer if name == "retrained" else ():
            if len(tensor.dims) == 4:
                weights = numpy_helper.to_array(tensor)
                tensor.CopyFrom(numpy_helper.from_array(1.3 * weights + 0.01, tensor.name))
        if name == "unknown":
            kept = [entry for entry in proto.metadata_props if entry.key != "nrp_onnx.source"]
            assert len(kept) == len(proto.metadata_props) - 1
            del proto.metadata_props[:]
            proto.metadata_props.extend(kept)
        files[name] = tmp_path / f"{name}.onnx"
        onnx.save(proto, files[name])
    out = tmp_path / "study"
    command = ["study", "robustness", *files.values(), "--recordings", recordings_folder,
               "--levels", "8", "--fgsm", "2", "--images", 16, "--search", "quick", "--folds", 3,
               "--device", "cpu", "-o", out]  # fmt: skip
    run = nrp_onnx(*command)
    assert run.returncode == 0, run.stderr
    assert "no FGSM of retrained" in run.stderr
    assert "another than that of the file" in run.stderr
    assert "no FGSM of unknown" in run.stderr
    assert "no gradients" in run.stdout
    study = json.loads((out / "robustness.json").read_text())
    values = {record["model"]: record["fgsm"]["2"]["value"] for record in study["models"]}
    assert values["first"] > 0 < values["second"]
    assert values["retrained"] is values["unknown"] is None
    table = pd.read_csv(out / "robustness.csv").set_index("model")
    assert table.loc["first", "fgsm_2_value"] == values["first"]
    assert np.isnan(table.loc["unknown", "fgsm_2_value"])
    figure = (out / "robustness.svg").read_text()
    assert "FGSM of 2 of 255 grey levels" in figure
    once = out / "sensitivity" / "first-fgsm.json"
    before = once.stat().st_mtime_ns
    assert nrp_onnx(*command).returncode == 0
    assert once.stat().st_mtime_ns == before
    assert json.loads((out / "robustness.json").read_text()) == study


def test_steps_that_rounding_takes_away_are_refused(
    model_path: Path, recordings_folder: Path, tmp_path: Path
) -> None:
    recordings = load_recordings(recordings_folder)
    with pytest.raises(OptionError, match=r"--fgsm.*from 0.5 up"):
        study_robustness([model_path], recordings, tmp_path, [1.0], 8, ScoreOptions(), fgsm=[0.2])
