"""Sites that hardly answer are left out of a score, counted and named."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from nrp_onnx.errors import RecordingsError
from nrp_onnx.notes import Notes
from nrp_onnx.recordings import Recordings, load_recordings, save_recordings
from nrp_onnx.recordings.silent_sites import silent
from nrp_onnx.scoring.left_out import without_silent_sites
from nrp_onnx.scoring.splits import outer_folds
from tests.command_line import Finished, assert_user_error, nrp_onnx

N_IMAGES = 40


@pytest.fixture
def recordings(recordings_folder: Path) -> Recordings:
    return load_recordings(recordings_folder)


@pytest.fixture
def with_sites(recordings: Recordings) -> Callable[..., Recordings]:
    """The recordings with further sites, one for each rates of the images (n_images,)."""

    def add(**sites: np.ndarray) -> Recordings:
        columns = np.stack([sites[name][recordings.presentation_stimulus] for name in sites], 1)
        return replace(
            recordings,
            responses=np.hstack([recordings.responses, columns.astype(np.float32)]),
            site_ids=(*recordings.site_ids, *sites),
            regions=(*recordings.regions, *["V4"] * len(sites)),
            site_labels={},
        )

    return add


def _score(model: Path, folder: Path, out: Path) -> Finished:
    return nrp_onnx(
        "score", model, "--recordings", folder, "-o", out, "--search", "quick", "--layers", "4"
    )


def test_silent_is_constant_or_alike_for_all_but_two_images() -> None:
    rng = np.random.default_rng(0)
    rates = {
        "never": (np.zeros(N_IMAGES), True),
        "always 0.1": (np.full(N_IMAGES, 0.1), True),
        "rounding alone": (1e8 + rng.integers(-1, 2, N_IMAGES) * 8, True),
        "one image": (np.eye(N_IMAGES)[3], True),
        "two images": (np.eye(N_IMAGES)[3] + 2 * np.eye(N_IMAGES)[7], True),
        "three images": (np.eye(N_IMAGES)[[3, 7, 9]].sum(axis=0), False),
        "all": (rng.standard_normal(N_IMAGES), False),
        "large and small changes": (1e4 + rng.standard_normal(N_IMAGES), False),
        "not recorded": (np.full(N_IMAGES, np.nan), False),
        "recorded at one image": (np.where(np.arange(N_IMAGES) == 5, 1.0, np.nan), False),
        "constant where recorded": (np.where(np.arange(N_IMAGES) < 20, 1.0, np.nan), True),
    }
    columns = np.stack([column for column, _ in rates.values()], axis=1)
    found = dict(zip(rates, silent(columns).tolist(), strict=True))
    assert found == {name: expected for name, (_, expected) in rates.items()}


def test_of_few_images_sites_that_differ_are_not_silent() -> None:
    assert silent(np.array([[1.0], [2], [3]])).tolist() == [False]
    assert silent(np.array([[1.0], [1], [1]])).tolist() == [True]


def test_a_site_that_is_constant_over_training_images_of_a_fold_is_left_out(
    recordings: Recordings, with_sites: Callable[..., Recordings]
) -> None:
    folds = outer_folds(recordings, 5, seed=0)
    rates = np.zeros(N_IMAGES)
    rates[folds[2].test] = np.arange(1, len(folds[2].test) + 1)
    wide = with_sites(held_out=rates)
    assert not silent(wide.averages)[-1]
    notes = Notes()
    kept, names = without_silent_sites(wide, folds, notes)
    assert names == ["held_out"]
    assert kept.site_ids == recordings.site_ids
    np.testing.assert_array_equal(kept.averages, recordings.averages)
    assert "1 of 7 sites are silent and left out: 'held_out'" in notes.said[0]
    assert "(1 of them) all training images of a fold" in notes.said[0]


def test_a_score_is_that_of_the_other_sites_and_names_the_silent_ones(
    recordings_folder: Path,
    with_sites: Callable[..., Recordings],
    model_path: Path,
    tmp_path: Path,
) -> None:
    wide = with_sites(never=np.zeros(N_IMAGES), once=np.eye(N_IMAGES)[11])
    save_recordings(wide, tmp_path / "wide")
    alone = _score(model_path, recordings_folder, tmp_path / "alone")
    beside = _score(model_path, tmp_path / "wide", tmp_path / "beside")
    assert (alone.returncode, beside.returncode) == (0, 0), beside.stderr
    assert "note: 2 of 8 sites are silent and left out: 'never', 'once'" in beside.stderr
    expected, found = (
        json.loads((tmp_path / name / "result.json").read_text()) for name in ("alone", "beside")
    )
    assert found["nrp_error"] == expected["nrp_error"]
    assert found["regions"] == expected["regions"]
    assert (found["recordings"]["n_sites"], found["recordings"]["silent_sites"]) == (
        6,
        ["never", "once"],
    )
    assert expected["recordings"]["silent_sites"] == []
    page = (tmp_path / "beside" / "report.html").read_text()
    assert "2 silent sites: never, once" in page


def test_validate_and_describe_name_silent_sites(
    with_sites: Callable[..., Recordings], tmp_path: Path
) -> None:
    save_recordings(with_sites(never=np.zeros(N_IMAGES)), tmp_path / "wide")
    run = nrp_onnx("recordings", "validate", tmp_path / "wide", "--json")
    assert json.loads(run.stdout)["silent_sites"] == ["never"]
    assert "1 of 7 sites are silent" in run.stderr
    assert "'never'" in run.stderr
    run = nrp_onnx("recordings", "describe", tmp_path / "wide")
    assert "silent_sites: never" in run.stdout.splitlines()


def test_where_all_sites_are_silent_nothing_is_scored(
    recordings: Recordings, model_path: Path, tmp_path: Path
) -> None:
    constant = replace(recordings, responses=np.full_like(recordings.responses, 7))
    save_recordings(constant, tmp_path / "constant")
    run = _score(model_path, tmp_path / "constant", tmp_path / "out")
    assert_user_error(run, "every site is silent", "V4_000")
    assert not (tmp_path / "out").exists()
    with pytest.raises(RecordingsError, match="every site is silent"):
        without_silent_sites(constant, outer_folds(constant, 5, seed=0), Notes())


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("constant_rates", ["every site is silent"]),
        ("site_at_one_image", ["without a response to the training images"]),
        ("rates_plus_1e8", ["every site is silent", "rounding of float32"]),
    ],
)
def test_the_shared_recordings_end_as_their_readme_says(
    shared: Path, model_path: Path, tmp_path: Path, name: str, parts: list[str]
) -> None:
    run = _score(model_path, shared / "cases" / "recordings" / name, tmp_path / "out")
    assert_user_error(run, *parts)
