"""A score whose predictors see where: what it reports, and that the exported predictor is the scored one."""

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pandas as pd
import pytest
from PIL import Image

from tests.command_line import nrp_onnx

pytestmark = pytest.mark.slow

SEARCH = {
    "sizes": [[4, 0]],
    "masks": ["gaussian"],
    "components": 2,
    "channels": 4,
    "parts": 2,
    "calibrate": True,
    "masked": True,
    # One share alone, so that the path is in the exported predictor.
    "linear_shares": [0.5],
    "max_epochs": 3,
    "schedule": "cosine",
}


@pytest.fixture(scope="module")
def run_folder(
    model_path: Path, recordings_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    folder = tmp_path_factory.mktemp("spatial")
    (folder / "search.json").write_text(json.dumps(SEARCH))
    run = nrp_onnx(
        "score", model_path, "--recordings", recordings_folder, "-o", folder / "run",
        "--search", folder / "search.json", "--folds", 2,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    return folder / "run"


def test_every_predictor_has_a_calibrated_twin_and_the_headline_says_what_it_is(
    run_folder: Path,
) -> None:
    result = json.loads((run_folder / "result.json").read_text())
    plain = ["mean", "ols", "ridge", "pls", "kernel", "masked_ridge", "masked_kernel", "nrp"]
    names = {*plain, "nrp+masked_kernel"}
    assert set(result["regions"]["V4"]["predictors"]) == names | {f"{n}_calibrated" for n in names}
    assert result["headline"] == "nrp+masked_kernel"
    shares = result["regions"]["V4"]["shares"]
    assert shares["masked_kernel"] == 0.5
    assert sum(shares.values()) == pytest.approx(1)
    # The recorded rates go below 0, so that they have no square roots.
    assert [best["square_roots"] for best in result["search"]["best"]] == [False, False]
    assert any("turned back, in 0 of 2 folds" in note for note in result["notes"])
    table = pd.read_parquet(run_folder / "predictions.parquet")
    recorded, mean = (np.stack(table[name].to_list()) for name in ("recorded", "mean_calibrated"))
    # A predictor that says the same of all images is calibrated to the median.
    fold = table["fold"].to_numpy()
    expected = np.stack([np.median(recorded[fold != k], axis=0) for k in range(2)])[fold]
    few = (fold[:, None] != fold).sum(axis=1) < 20  # too few images to calibrate on
    np.testing.assert_allclose(mean[~few], expected[~few], atol=1e-2)
    sites = pd.read_csv(run_folder / "sites.csv")
    assert {"rf_x", "rf_y", "rf_width"} <= set(sites.columns)
    known = sites["rf_x"].notna()
    assert sites.loc[known, ["rf_x", "rf_y"]].stack().between(0, 1).all()
    assert set(sites.loc[known, "rf_width"].round(3)) <= {0.143, 0.214, 0.286}


def test_the_exported_predictor_is_the_scored_one(
    run_folder: Path, recordings_folder: Path
) -> None:
    result = json.loads((run_folder / "result.json").read_text())
    assert result["export"]["max_difference_sd"] < 1e-4
    table = pd.read_parquet(run_folder / "predictions.parquet")
    held_out = table[table["fold"] == 0]
    files = pd.read_csv(recordings_folder / "stimuli.csv").set_index("stimulus_id")["filename"]
    images = np.stack(
        [
            np.asarray(Image.open(recordings_folder / "stimuli" / files[name]))
            for name in held_out["stimulus_id"]
        ]
    )
    onnx.checker.check_model(str(run_folder / "predictor.onnx"), full_check=True)
    session = ort.InferenceSession(
        run_folder / "predictor.onnx", providers=["CPUExecutionProvider"]
    )
    (rates,) = session.run(None, {"images": images})
    scored = np.stack(held_out[result["headline"]].to_list())
    deviation = np.stack(table["recorded"].to_list()).std(axis=0)
    assert (np.abs(rates - scored) / deviation).max() < 1e-4
