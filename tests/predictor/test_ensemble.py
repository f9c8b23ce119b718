"""Ensembles with a linear path: against scikit-learn, and as an exported model."""

import json
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pandas as pd
import pytest
from PIL import Image
from sklearn.linear_model import RidgeCV

from nrp_onnx.activations.layer_file import LoadedLayer
from nrp_onnx.predictor.baselines import fit_baselines
from nrp_onnx.predictor.image_products import read_span
from nrp_onnx.predictor.linear_path import LinearPath
from nrp_onnx.predictor.ridge import ALPHAS
from tests.command_line import nrp_onnx

#: Together they take over ten seconds of a core.
pytestmark = pytest.mark.slow

TRAIN, TEST = np.arange(80), np.arange(80, 100)


@pytest.mark.parametrize("n_features", [(12, 20), (300, 15)])
def test_linear_path_is_ridge_and_its_weights_give_its_rates(n_features: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    layers = [
        (5.0**i * rng.standard_normal((100, n)) + i).astype(np.float32)
        for i, n in enumerate(n_features)
    ]
    y = layers[0][:, :8] @ rng.standard_normal((8, 3)) + rng.standard_normal((100, 3))
    y[:7, 1] = np.nan
    spans = [read_span(LoadedLayer(x)) for x in layers]
    path = fit_baselines(spans, y[TRAIN], TRAIN, np.arange(100), kernel_ridge=False).ridge
    assert isinstance(path, LinearPath)

    parts = []
    for x in layers:
        moved = x.astype(np.float64) - x[TRAIN].mean(axis=0, dtype=np.float64)
        parts.append(moved / np.sqrt((moved[TRAIN] ** 2).sum(axis=1).mean()))
    joined = np.hstack(parts)
    for site in range(3):
        rows = TRAIN[~np.isnan(y[TRAIN, site])]
        alphas = ALPHAS * ((joined[rows] - joined[rows].mean(axis=0)) ** 2).sum(axis=1).mean()
        expected = RidgeCV(alphas).fit(joined[rows], y[rows, site]).predict(joined)
        np.testing.assert_allclose(path.rates[:, site], expected, atol=1e-6)

    rates = path.at_mean.copy()
    for place, x in enumerate(layers):
        weights, mean = path.fold(place, LoadedLayer(x))
        rates = rates + (x - mean) @ weights.T
    np.testing.assert_allclose(rates[TEST], path.rates[TEST], atol=1e-9)


@pytest.fixture(scope="module")
def ensemble(
    model_path: Path, recordings_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A run whose predictor has three heads of one layer set each and a linear path."""
    folder = tmp_path_factory.mktemp("ensemble")
    search = {
        "layers": ["each"],
        "sizes": [[6, 5]],
        "learning_rates": [1e-2],
        "dropouts": [0.1],
        "losses": ["mae"],
        "seeds": 2,
        "directions": 9,
        "members": 3,
        "linear_shares": [0.25],
        "max_epochs": 12,
        "max_steps": 5,
        "schedule": "cosine",
    }
    (folder / "search.json").write_text(json.dumps(search))
    run = nrp_onnx(
        "score", model_path, "--recordings", recordings_folder, "-o", folder / "run",
        "--search", folder / "search.json", "--layers", "1,3", "--folds", 2,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    return folder / "run"


def test_exported_ensemble_gives_the_scored_rates(ensemble: Path, recordings_folder: Path) -> None:
    result = json.loads((ensemble / "result.json").read_text())
    best = result["search"]["best"][0]
    assert best["shares"]["V4"]["ridge"] == 0.25
    assert sum(best["shares"]["V4"].values()) == pytest.approx(1)
    assert len(best["layers"]) == 1
    assert result["export"]["max_difference_sd"] < 1e-4
    predictors = list(result["regions"]["V4"]["predictors"])
    assert predictors == ["mean", "ols", "ridge", "pls", "kernel", "nrp", "nrp+ridge"]
    assert result["headline"] == "nrp+ridge"
    table = pd.read_parquet(ensemble / "predictions.parquet")
    held_out = table[table["fold"] == 0]
    files = pd.read_csv(recordings_folder / "stimuli.csv").set_index("stimulus_id")["filename"]
    images = np.stack(
        [
            np.asarray(Image.open(recordings_folder / "stimuli" / files[name]))
            for name in held_out["stimulus_id"]
        ]
    )
    providers = ["CPUExecutionProvider"]
    predictor = ort.InferenceSession(ensemble / "predictor.onnx", providers=providers)
    (rates,) = predictor.run(None, {"images": images})
    scored = np.stack(held_out["nrp+ridge"].to_list())
    deviation = np.nanstd(np.stack(table["recorded"].to_list()), axis=0)
    assert (np.abs(rates - scored) / deviation).max() < 1e-4
    # The linear path sees both layers, so that the head needs both.
    head = ort.InferenceSession(ensemble / "head.onnx", providers=providers)
    assert [value.name for value in head.get_inputs()] == ["1", "3"]


def test_a_cosine_schedule_ends_after_the_steps(ensemble: Path) -> None:
    """20 training images less 4 for validation are one minibatch: five steps, five epochs."""
    trials = pd.read_parquet(ensemble / "trials.parquet")
    assert len(trials) == 2 * 2 * 2
    assert set(trials["curve"].map(len)) == {5}
