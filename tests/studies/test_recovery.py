"""The recovery study, and the sites that it simulates."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import kurtosis
from sklearn.linear_model import LinearRegression
from torch import nn

from nrp_onnx.recordings import load_recordings
from nrp_onnx.recordings.simulation.sites import layer_drive, simulate_from_layer
from tests.command_line import assert_user_error, nrp_onnx

pytestmark = pytest.mark.slow


def test_no_linear_map_of_the_layer_gives_the_drive() -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2000, 30)) * np.linspace(2, 0.1, 30)
    drive = layer_drive(x, 20, np.random.default_rng(1))
    np.testing.assert_array_equal(drive, layer_drive(x, 20, np.random.default_rng(1)))
    assert drive.min() >= 0
    r2 = 1 - ((LinearRegression().fit(x, drive).predict(x) - drive) ** 2).sum(0) / (
        (drive - drive.mean(0)) ** 2
    ).sum(0)
    assert (r2 < 0.9).all()
    assert (kurtosis(drive) > 0).mean() > 0.8  # sparse, as rectified products are


def test_trials_scatter_around_the_noise_free_rates(recordings_folder: Path) -> None:
    stimuli = load_recordings(recordings_folder)
    x = np.random.default_rng(0).standard_normal((stimuli.n_stimuli, 50))
    found = simulate_from_layer(stimuli, x, "net:layer", 30, seed=3)
    again = simulate_from_layer(stimuli, x, "net:layer", 30, seed=3)
    other = simulate_from_layer(stimuli, x, "net:layer", 30, seed=4)
    np.testing.assert_array_equal(found.responses, again.responses)
    assert not np.array_equal(found.responses, other.responses)
    assert found.simulated
    assert found.noise_free is not None
    # Counts of mean m and Fano factor 1.3 in units of sqrt(1.3 b), b the count for a blank.
    error = found.averages - found.noise_free
    trials = found.responses.reshape(stimuli.n_stimuli, 10, 30)
    assert abs(error.mean()) < 3 * error.std() / np.sqrt(error.size)
    assert error.std() == pytest.approx(np.sqrt(trials.var(axis=1, ddof=1).mean() / 10), rel=0.1)


@pytest.fixture(scope="module")
def twins(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two small networks with other random weights."""
    from nrp_converters.torch.modules import convert
    from nrp_onnx.backbone.preprocessing import PRESETS

    paths = []
    for seed, name in enumerate(("one", "two")):
        torch.manual_seed(seed)
        network = nn.Sequential(nn.Conv2d(3, 6, 5, stride=4), nn.ReLU()).eval()
        path = tmp_path_factory.mktemp("twins") / f"{name}.onnx"
        convert(network, torch.zeros(1, 3, 32, 32), preprocessing=PRESETS["tf"]).save(path)
        paths.append(path)
    return paths


def test_the_study_names_the_source(
    twins: list[Path], recordings_folder: Path, tmp_path: Path
) -> None:
    words = [
        "study", "recovery", *twins, "--recordings", recordings_folder, "--layers", "1",
        "--populations", 2, "--sites", 8, "--search", "quick", "-o", tmp_path / "study",
    ]  # fmt: skip
    run = nrp_onnx(*words, "--json")
    assert run.returncode == 0, run.stderr
    result = json.loads(run.stdout)
    assert result == json.loads((tmp_path / "study" / "recovery.json").read_text())
    assert result["candidates"] == ["one:1", "two:1"]
    assert [row["source"] for row in result["populations"]] == ["one:1", "two:1"]
    confusion = np.array(result["confusion"]["ridge"])
    assert confusion.sum() == 2
    assert np.trace(confusion) == result["first"]["ridge"]
    with np.load(tmp_path / "study" / "populations" / "000.npz") as held:
        names = [tuple(pair) for pair in held["names"].tolist()]
        maes = {pair: np.abs(held[f"errors_{i}"]).mean() for i, pair in enumerate(names)}
    row = result["populations"][0]
    winner = min(("one:1", "two:1"), key=lambda name: maes[name, "ridge"])
    assert row["first"]["ridge"] == winner
    mean, ridge = maes["one:1", "mean"], maes["one:1", "ridge"]
    removed = (mean - ridge) / (mean - row["noise_floor"])
    assert row["explainable_removed"]["ridge"] == pytest.approx(removed)

    # A second run finds what the first left, and a lost population is scored again to the same.
    (tmp_path / "study" / "populations" / "001.npz").write_bytes(b"cut")
    again = nrp_onnx(*words)
    assert again.returncode == 0, again.stderr
    assert "the true source ranks first at" in again.stdout
    assert "SIMULATED" in again.stdout
    repeated = json.loads((tmp_path / "study" / "recovery.json").read_text())
    assert repeated["populations"] == result["populations"]


def test_models_of_one_name_are_refused(twins: list[Path], tmp_path: Path) -> None:
    run = nrp_onnx("study", "recovery", twins[0], twins[0], "-o", tmp_path / "study")
    assert_user_error(run, "the same name")
