"""A score whose fits are on features, as those of many images are, beside one whose fits are on images."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import nrp_onnx as nrp
from nrp_onnx.predictor import memory
from nrp_onnx.recordings import load_recordings
from tests.command_line import assert_user_error, nrp_onnx


def _rates(run: nrp.Run, name: str) -> np.ndarray:
    table = pd.read_parquet(run.folder / "predictions.parquet")
    return np.stack(table[name].to_list()).astype(float)


@pytest.mark.parametrize(
    ("search", "names"),
    [
        ("quick", ["mean", "ols", "ridge", "pls"]),
        ("default", ["ridge", "kernel", "masked_ridge", "masked_kernel"]),
    ],
)
def test_features_and_images_give_the_same_rates(
    search: str,
    names: list[str],
    model_path: Path,
    recordings_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """All features of these layers fit, and all training images are landmarks: nothing is approximate."""

    def scored(name: str) -> nrp.Run:
        return nrp.score(
            *(model_path, recordings_folder),
            out=tmp_path / name,
            layers="1",
            reduce="avgpool:2",
            search=search,
            folds=8,
            report=False,
        )

    dual = scored("dual")
    monkeypatch.setattr(memory, "MOST_IMAGES", 10)
    primal = scored("primal")
    assert not any("fitted on features" in note for note in dual.result.notes)
    assert any("40 images are fitted on features" in note for note in primal.result.notes)
    assert (dual.result.search.fits_on, dual.result.search.sizes) == ("images", None)
    assert primal.result.search.fits_on == "features"
    assert primal.result.search.sizes is not None
    assert primal.result.search.sizes["landmarks"] == 1024
    deviation = np.nanstd(load_recordings(recordings_folder).averages, axis=0)
    for name in names:
        apart = np.abs(_rates(dual, name) - _rates(primal, name)) / deviation
        # The site that misses a response has landmarks around another mean.
        assert apart[:, 1:].max() < (
            1e-3 if name in ("kernel", "masked_ridge", "masked_kernel") else 1e-4
        ), name
    assert primal.result.export.max_difference_sd < 1e-4
    of_both = [run.result.regions["V4"].brainscore for run in (dual, primal)]
    assert of_both[0] is not None
    assert of_both[1] is not None
    assert of_both[0].r == pytest.approx(of_both[1].r, abs=1e-3)


def test_a_budget_that_holds_nothing_is_one_line_before_anything_is_computed(
    model_path: Path, recordings_folder: Path, tmp_path: Path
) -> None:
    given = ["score", model_path, "--recordings", recordings_folder, "-o", tmp_path / "run"]
    run = nrp_onnx(*given, "--memory", "500MB")
    assert_user_error(run, "--memory", "GB or more for 40 images, 6 sites", "0.5 GB")
    assert not (tmp_path / "run" / "activations").exists()
    assert_user_error(nrp_onnx(*given, "--memory", "lots"), "--memory", "4GB", "'lots'")
