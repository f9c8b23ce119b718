"""The study of robustness: its measure against a computation of its own, and the command."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from scipy import stats
from torch import nn

from nrp_converters.torch.modules import convert
from nrp_onnx.backbone.feature_graph import Feature, with_known_shapes
from nrp_onnx.backbone.model import load_backbone
from nrp_onnx.backbone.preprocessing import PRESETS
from nrp_onnx.backbone.reductions import Reduction
from nrp_onnx.errors import OptionError
from nrp_onnx.notes import Notes
from nrp_onnx.recordings import load_recordings, simulate_recordings
from nrp_onnx.scoring.options import ScoreOptions
from nrp_onnx.studies.perturbed_distances import (
    GaussianNoise,
    PerturbedDistances,
    measure_distances,
    noisy_image,
)
from nrp_onnx.studies.robustness import study_robustness
from nrp_onnx.studies.sensitivity import sensitivity_of
from tests.command_line import assert_user_error, nrp_onnx

pytestmark = pytest.mark.slow

LEVELS = (0.0, 4.0, 32.0)
QUICK = ("--search", "quick", "--folds", 3)


def test_noise_has_its_deviation_and_depends_on_seed_and_image_only() -> None:
    grey = np.full((200, 200, 3), 128, np.uint8)
    noise = noisy_image(grey, 8, 0, 5).astype(float) - 128
    assert noise.std() == pytest.approx(np.hypot(8, 1 / np.sqrt(12)), rel=0.01)  # and rounding
    assert noise.mean() == pytest.approx(0, abs=0.1)
    np.testing.assert_array_equal(noisy_image(grey, 8, 0, 5), noisy_image(grey, 8, 0, 5))
    assert (noisy_image(grey, 8, 0, 6) != noisy_image(grey, 8, 0, 5)).any()
    assert (noisy_image(grey, 8, 1, 5) != noisy_image(grey, 8, 0, 5)).any()
    white = np.full((50, 50, 3), 250, np.uint8)
    assert noisy_image(white, 32, 0, 0).max() == 255
    np.testing.assert_array_equal(noisy_image(white, 0, 0, 0), white)


def test_sensitivity_is_that_of_the_torch_network(
    network: nn.Module, model_path: Path, recordings_folder: Path
) -> None:
    recordings = load_recordings(recordings_folder)
    backbone = load_backbone(model_path)
    names = ["1", "3"]
    layers = with_known_shapes(backbone, [of for of in backbone.layers if of.name in names])
    features = [Feature(layer, Reduction("none")) for layer in layers]
    images = list(enumerate(recordings.stimulus_paths))[:37]
    assert backbone.preprocessing is not None
    distances = measure_distances(
        *(backbone, backbone.preprocessing, features, images, GaussianNoise(LEVELS, 3)),
        *("cpu", Notes()),
    )
    found = sensitivity_of(distances, names)

    def activations(pixels: list[np.ndarray], depth: int) -> np.ndarray:
        batch = torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).float() / 127.5 - 1
        with torch.no_grad():
            for layer in list(network.children())[: depth + 1]:
                batch = layer(batch)
        return batch.flatten(1).double().numpy()

    clean = [np.asarray(Image.open(path).convert("RGB")) for _, path in images]
    for level, of_level in zip(LEVELS, found["levels"], strict=True):
        noisy = [
            noisy_image(x, level, 3, place) for (place, _), x in zip(images, clean, strict=True)
        ]
        expected = {}
        for name in names:
            f, g = activations(clean, int(name)), activations(noisy, int(name))
            pairs = [np.linalg.norm(f[i] - f[j]) for i in range(37) for j in range(i)]
            expected[name] = np.linalg.norm(g - f, axis=1).mean() / np.mean(pairs)
        assert of_level["layers"] == pytest.approx(expected, rel=1e-4)
        assert of_level["value"] == pytest.approx(np.mean(list(expected.values())), rel=1e-4)
        low, high = of_level["ci95"]
        assert low <= of_level["value"] <= high
    none, little, much = (of["value"] for of in found["levels"])
    assert none == 0 < little < much
    assert found["levels"][0]["ci95"] == [0, 0]


def test_layers_that_are_the_same_for_all_images_are_left_out() -> None:
    apart = np.zeros((2, 4, 4))
    apart[0] = 2 * (1 - np.eye(4))
    found = sensitivity_of(PerturbedDistances(np.ones((1, 2, 4)), apart), ["alive", "dead"])
    assert found["without"] == ["dead"]
    assert found["levels"][0]["layers"] == {"alive": 0.5}
    assert found["levels"][0]["ci95"] == [0.5, 0.5]


@pytest.fixture(scope="module")
def backbones(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("backbones")
    files = []
    for seed, name in enumerate(("narrow", "wide", "wider")):
        torch.manual_seed(seed)
        n = 4 * (seed + 1)
        module = nn.Sequential(
            nn.Conv2d(3, n, 3, stride=4), nn.ReLU(), nn.Conv2d(n, n, 3, stride=2), nn.ReLU()
        ).eval()
        files.append(folder / f"{name}.onnx")
        convert(module, torch.zeros(1, 3, 32, 32), preprocessing=PRESETS["tf"]).save(files[-1])
    return files


def test_the_command_leaves_table_and_figure_and_measures_once(
    backbones: list[Path], tmp_path: Path
) -> None:
    simulate_recordings(tmp_path / "recordings", 64)
    out = tmp_path / "study"
    command = ["study", "robustness", *backbones, "--recordings", tmp_path / "recordings",
               "--levels", "4,16,64", "--images", 24, "-o", out, *QUICK]  # fmt: skip
    run = nrp_onnx(*command)
    assert run.returncode == 0, run.stderr
    study = json.loads((out / "robustness.json").read_text())
    assert study["levels"] == [4, 16, 64]
    assert study["n_images"] == 24
    assert study["recordings"]["simulated"]
    table = pd.read_csv(out / "robustness.csv").set_index("model")
    names = [path.stem for path in backbones]
    assert list(table.index) == names
    for name, record in zip(names, study["models"], strict=True):
        result = json.loads((out / "runs" / name / "result.json").read_text())
        assert record["nrp_error"] == result["nrp_error"] == table.loc[name, "nrp_error"]
        values = [record["sensitivity"][level]["value"] for level in ("4", "16", "64")]
        assert 0 < values[0] < values[1] < values[2]
        assert table.loc[name, "sensitivity_16_value"] == values[1]
        layers = [layer["name"] for layer in result["model"]["layers"]]
        assert list(record["sensitivity"]["4"]["layers"]) == layers
    rank = study["rank_correlation"]["16"]
    expected = stats.spearmanr(table["nrp_error"], table["sensitivity_16_value"])
    assert rank["rho"] == pytest.approx(expected.statistic)
    figure = (out / "robustness.svg").read_text()
    for text in (*names, "SIMULATED", "noise of 64 of 255 grey levels", f"ρ = {rank['rho']:.2f}"):
        assert text in figure
    assert Image.open(out / "robustness.png").width >= 800
    assert (out / "robustness.pdf").stat().st_size > 2000
    assert "SIMULATED" in run.stdout

    measured = [out / "sensitivity" / f"{name}.json" for name in names]
    before = [path.stat().st_mtime_ns for path in measured]
    again = nrp_onnx(*command)
    assert again.returncode == 0, again.stderr
    assert [path.stat().st_mtime_ns for path in measured] == before
    assert again.stderr.count("holds this very run, finished") == 3
    assert json.loads((out / "robustness.json").read_text()) == study


def test_levels_that_are_none_are_one_line(
    model_path: Path, recordings_folder: Path, tmp_path: Path
) -> None:
    run = nrp_onnx(
        "study", "robustness", model_path, "--recordings", recordings_folder, "--levels", "4,much",
        "-o", tmp_path / "out",
    )  # fmt: skip
    assert_user_error(run, "--levels", "numbers from 0 up with commas", "'4,much'")
    recordings = load_recordings(recordings_folder)
    for levels in ([-1.0], [4.0, 4.0], [np.nan]):
        with pytest.raises(OptionError, match=r"--levels.*different numbers from 0 up"):
            study_robustness([model_path], recordings, tmp_path / "out", levels, 8, ScoreOptions())
    assert not (tmp_path / "out").exists()
