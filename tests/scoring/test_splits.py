"""What is refused or said of the recordings once the folds are known, before anything is computed."""

import logging
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from nrp_onnx.api import score_with
from nrp_onnx.errors import RecordingsError
from nrp_onnx.notes import Notes
from nrp_onnx.recordings import Recordings, load_recordings, save_recordings, validate_recordings
from nrp_onnx.scoring.options import ScoreOptions
from nrp_onnx.scoring.splits import check_responses, held_out_split, outer_folds
from tests.command_line import assert_user_error, nrp_onnx

N_IMAGES, N_SITES = 40, 6


def _with_responses(recordings: Recordings, known: np.ndarray) -> Recordings:
    """The recordings without the responses where ``known`` (n_stimuli, n_sites) is false."""
    responses = np.where(known[recordings.presentation_stimulus], recordings.responses, np.nan)
    return replace(recordings, responses=responses.astype(np.float32))


@pytest.fixture
def recordings(recordings_folder: Path) -> Recordings:
    loaded = load_recordings(recordings_folder)
    assert (loaded.n_stimuli, loaded.n_sites) == (N_IMAGES, N_SITES)
    return loaded


@pytest.fixture
def at_one_image(recordings: Recordings, tmp_path: Path) -> Path:
    """A folder of recordings whose third site answered to one image alone."""
    known = np.ones((N_IMAGES, N_SITES), bool)
    known[:, 2] = np.arange(N_IMAGES) == 5
    save_recordings(_with_responses(recordings, known), tmp_path / "one")
    return tmp_path / "one"


def test_a_site_without_training_responses_is_refused_by_name_before_any_work(
    at_one_image: Path, model_path: Path, tmp_path: Path
) -> None:
    name = load_recordings(at_one_image).site_ids[2]
    run = nrp_onnx(
        "score", model_path, "--recordings", at_one_image, "-o", tmp_path / "out",
        "--search", "quick",
    )  # fmt: skip
    assert_user_error(
        run, "without a response to the training images", f"{name!r} with 1", "without these sites"
    )
    assert not (tmp_path / "out").exists()


def test_validate_warns_of_a_site_with_few_responses(
    at_one_image: Path, recordings_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    name = load_recordings(at_one_image).site_ids[2]
    with caplog.at_level(logging.WARNING, "nrp_onnx"):
        assert validate_recordings(recordings_folder) == []
        assert not caplog.messages
        assert validate_recordings(at_one_image) == []
    (message,) = caplog.messages
    assert "1 of 6 sites have responses to fewer than 10 images" in message
    assert f"{name!r} to 1" in message


def test_the_fit_images_count_and_not_those_that_validate(recordings: Recordings) -> None:
    folds = outer_folds(recordings, 5, seed=0)
    known = np.ones((N_IMAGES, N_SITES), bool)
    known[:, 4] = False
    known[folds[1].validation, 4] = True
    with pytest.raises(RecordingsError, match=recordings.site_ids[4]):
        check_responses(_with_responses(recordings, known), folds, Notes())
    for fold in folds:
        known[fold.fit[0], 4] = True
    check_responses(_with_responses(recordings, known), folds, Notes())


def test_a_region_without_held_out_responses_is_refused(recordings: Recordings) -> None:
    recordings = replace(recordings, regions=("V4", "V4", "V4", "V4", "IT", "IT"))
    (fold,) = held_out_split(recordings, seed=0)
    known = np.ones((N_IMAGES, N_SITES), bool)
    known[fold.test, 4:] = False
    with pytest.raises(RecordingsError, match="the region IT has no response to the held-out"):
        check_responses(_with_responses(recordings, known), [fold], Notes())


def test_many_patterns_of_missing_responses_are_said(recordings: Recordings) -> None:
    """Each site misses another image: as many patterns as sites."""
    wide = replace(
        recordings,
        responses=np.tile(recordings.responses, (1, 2)),
        site_ids=tuple(f"s{n}" for n in range(12)),
        regions=("V4",) * 12,
        site_labels={},
    )
    folds = outer_folds(wide, 5, seed=0)
    known = np.ones((N_IMAGES, 12), bool)
    for n_sites, said in ((3, []), (12, ["responses are missing in 12 patterns"])):
        known[folds[0].train[:n_sites], np.arange(n_sites)] = False
        notes = Notes()
        check_responses(_with_responses(wide, known), folds, notes)
        assert [text.partition(",")[0] for text in notes.said] == said


def test_a_score_leaves_the_random_numbers_of_its_caller(
    model_path: Path, recordings_folder: Path, tmp_path: Path
) -> None:
    states = (
        random.getstate(),
        str(np.random.get_state(legacy=False)["state"]),
        torch.get_rng_state().tolist(),
    )
    n_threads = torch.get_num_threads()
    options = ScoreOptions(search="quick", report=False)
    score_with(model_path, load_recordings(recordings_folder), tmp_path / "run", options)
    assert states == (
        random.getstate(),
        str(np.random.get_state(legacy=False)["state"]),
        torch.get_rng_state().tolist(),
    )
    assert torch.get_num_threads() == n_threads
