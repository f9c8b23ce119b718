"""The second set of models, fitted to all images: what it says of itself, and its rates."""

import json
from pathlib import Path

import numpy as np
import onnx
import pandas as pd
import pytest
from sklearn.linear_model import Ridge

import nrp_onnx as nrp
from nrp_onnx.activations.layer_file import StoredLayer, layer_path
from nrp_onnx.predictor.ridge import ALPHAS
from nrp_onnx.recordings import load_recordings


@pytest.fixture(scope="module")
def run(
    model_path: Path, recordings_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> nrp.Run:
    """Scored with ridge alone in the mixture, so that its rates are known."""
    folder = tmp_path_factory.mktemp("all")
    (folder / "ridge.yaml").write_text("sizes: [[4, 4]]\nlinear_shares: [1]\nkernel_ridge: false\n")
    return nrp.score(
        model_path,
        recordings_folder,
        out=folder / "run",
        search=str(folder / "ridge.yaml"),
        layers="1",
        reduce="avgpool:2",
        folds=4,
        all_images=True,
        report=False,
    )


def _metadata(path: Path) -> dict[str, str]:
    return {entry.key: entry.value for entry in onnx.load(path).metadata_props}


def test_each_file_says_which_images_it_saw(run: nrp.Run) -> None:
    held_out = pd.read_parquet(run.folder / "predictions.parquet").query("fold == 0")["stimulus_id"]
    for name in ("head", "predictor", "scorer"):
        of_fold = _metadata(run.folder / f"{name}.onnx")
        saw = json.loads(of_fold["nrp_onnx.trained_on"])
        assert (saw["what"], saw["n_images"]) == ("the training images of fold 0", 30)
        assert sorted(saw["not_seen"]) == sorted(held_out)
        assert of_fold["nrp_onnx.predictor"] == "nrp+ridge"
        of_all = json.loads(_metadata(run.folder / f"{name}_all.onnx")["nrp_onnx.trained_on"])
        assert of_all == {"what": "all images", "n_images": 40, "not_seen": []}


def test_its_rates_are_those_of_ridge_on_all_images(run: nrp.Run, recordings_folder: Path) -> None:
    recordings = load_recordings(recordings_folder)
    path = layer_path(run.folder / "activations", "1")
    x = StoredLayer(path, recordings.stimulus_ids).read(np.arange(40)).astype(float)
    x = (x - x.mean(axis=0)) / np.sqrt((x - x.mean(axis=0)).var(axis=0).sum())
    predictor = nrp.load_predictor(run.folder / "predictor_all.onnx")
    found = predictor.predict(list(recordings.stimulus_paths))
    for site in range(6):
        rates = recordings.averages[:, site]
        # One of the alphas that are tried: on noise, leave-one-out errors have several minima.
        expected = [Ridge(alpha).fit(x, rates).predict(x) for alpha in ALPHAS]
        apart = np.abs(np.array(expected) - found[:, site]).max(axis=1) / rates.std()
        assert apart.min() < 2e-3
    of_fold = nrp.load_predictor(run.folder / "predictor.onnx").predict(
        list(recordings.stimulus_paths)
    )
    assert np.abs(of_fold - found).max() > 0.01 * recordings.averages.std()
