"""scorer.onnx against a formula, with ONNX Runtime alone."""

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pandas as pd
import pytest
from PIL import Image

from tests.command_line import nrp_onnx


@pytest.fixture(scope="module")
def two_regions(recordings_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small recordings, with the last two sites in IT and one response missing for good."""
    from dataclasses import replace

    from nrp_onnx.recordings import load_recordings, save_recordings

    recordings = load_recordings(recordings_folder)
    responses = recordings.responses.copy()
    responses[recordings.presentation_stimulus == 3, 1] = np.nan
    changed = replace(recordings, regions=("V4",) * 4 + ("IT",) * 2, responses=responses)
    folder = tmp_path_factory.mktemp("two") / "regions"
    save_recordings(changed, folder)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("normalise", ["zscore", "none"])
def test_scorer_gives_the_nrp_error_of_the_held_out_images(
    normalise: str, model_path: Path, two_regions: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    run = nrp_onnx(
        "score", model_path, "--recordings", two_regions, "-o", out, "--search", "quick",
        "--normalise", normalise,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    onnx.checker.check_model(str(out / "scorer.onnx"), full_check=True)
    table = pd.read_parquet(out / "predictions.parquet")
    recorded, predicted = (np.stack(table[name].to_list()) for name in ("recorded", "nrp+ridge"))
    test = table["fold"].to_numpy() == 0
    scale = np.nanstd(recorded[~test], axis=0) if normalise == "zscore" else np.ones(6)
    files = pd.read_csv(two_regions / "stimuli.csv").set_index("stimulus_id")["filename"]
    names = [files[name] for name in table["stimulus_id"][test]]
    images = np.stack([np.asarray(Image.open(two_regions / "stimuli" / name)) for name in names])

    session = ort.InferenceSession(out / "scorer.onnx", providers=["CPUExecutionProvider"])
    rates, error, count = session.run(None, {"images": images, "recorded": recorded[test]})
    metadata = session.get_modelmeta().custom_metadata_map
    assert json.loads(metadata["nrp_onnx.region_names"]) == ["V4", "IT"]
    assert metadata["nrp_onnx.score_units"] == ("z" if normalise == "zscore" else "unknown")
    np.testing.assert_allclose(rates, predicted[test], atol=1e-3)
    errors = np.abs(predicted - recorded)[test] / scale
    for place, sites in enumerate((slice(0, 4), slice(4, 6))):
        assert error[place] == pytest.approx(np.nanmean(errors[:, sites]), rel=1e-3)
        assert count[place] == np.isfinite(recorded[test][:, sites]).sum()

    # Without anything recorded there is no error, and that is not 0.
    _, error, count = session.run(
        None, {"images": images, "recorded": np.full_like(recorded[test], np.nan)}
    )
    assert np.isnan(error).all()
    assert (count == 0).all()
