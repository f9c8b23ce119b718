"""The predictor with half-precision weights: what it gives, what it says, and when it is refused."""

from pathlib import Path

import numpy as np
import onnx
import pytest

import nrp_onnx as nrp
from nrp_onnx.recordings import load_recordings
from tests.command_line import assert_user_error, nrp_onnx


@pytest.fixture(scope="module")
def run(
    model_path: Path, recordings_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    folder = tmp_path_factory.mktemp("half")
    (folder / "ridge.yaml").write_text("sizes: [[4, 4]]\nlinear_shares: [1]\nkernel_ridge: false\n")
    return nrp.score(
        *(model_path, recordings_folder),
        out=folder / "run",
        search=str(folder / "ridge.yaml"),
        layers="1",
        reduce="avgpool:4",
        folds=4,
        report=False,
    ).folder


def test_the_change_is_what_both_files_give(run: Path, recordings_folder: Path) -> None:
    made = nrp_onnx("export", run, "--fp16", "--recordings", recordings_folder)
    assert made.returncode == 0, made.stderr
    whole, half = run / "predictor.onnx", run / "predictor_fp16.onnx"
    assert half.stat().st_size < 0.9 * whole.stat().st_size
    onnx.checker.check_model(onnx.load(half), full_check=True)
    card = nrp.read_card(half)
    assert card == nrp.read_card(run / "predictor_fp16.json")
    assert card.variant is not None
    recordings = load_recordings(recordings_folder)
    places = [x in card.trained_on.not_seen for x in recordings.stimulus_ids]
    images = [path for path, out in zip(recordings.stimulus_paths, places, strict=True) if out]
    before, after = (nrp.load_predictor(path).predict(images) for path in (whole, half))
    assert (before != after).any()
    largest = (np.abs(before - after) / before.std(axis=0)).max()
    assert card.variant.largest_change_sd == pytest.approx(largest, rel=1e-3)
    assert largest < 0.01
    recorded = recordings.averages[places]
    train = recordings.averages[~np.array(places)]
    scale = np.nanstd(train, axis=0)
    for rates, found in (
        (before, card.variant.nrp_error_before["V4"]),
        (after, card.variant.nrp_error["V4"]),
    ):
        assert found == pytest.approx(np.nanmean(np.abs(rates - recorded) / scale), rel=1e-4)
    assert f"-> {card.variant.nrp_error['V4']:.4f}" in made.stdout
    assert "half precision" in nrp_onnx("show", half).stdout


def test_rates_that_move_too_far_leave_no_file(
    run: Path, recordings_folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "small.onnx"
    given = ["export", run, "--fp16", "--recordings", recordings_folder, "-o", out]
    refused = nrp_onnx(*given, "--tolerance", "1e-9")
    assert_user_error(refused, "moves the rates too far", "1e-09", "--tolerance")
    assert list(tmp_path.iterdir()) == []
    assert_user_error(nrp_onnx(*given[:2], *given[3:]), "nothing is asked for", "--fp16")
