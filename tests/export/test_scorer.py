"""An exported scorer on recordings, against numpy and against the score that it came from."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pandas as pd
import pytest

import nrp_onnx as nrp
from nrp_onnx.recordings import Recordings, load_recordings, save_recordings
from tests.command_line import assert_user_error, nrp_onnx

#: The first test waits for a score.
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def two_regions(recordings_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small recordings with two regions, two animals, and responses that are missing for good."""
    recordings = load_recordings(recordings_folder)
    responses = recordings.responses.copy()
    responses[recordings.presentation_stimulus == 3, 1] = np.nan
    changed = replace(
        recordings,
        regions=("V4", "IT", "V4", "V4", "IT", "V4"),
        responses=responses,
        site_labels={"animal": ("m1", "m1", "m2", "m2", "m2", "m1")},
        units="spikes/s",
        name="two",
    )
    folder = tmp_path_factory.mktemp("two") / "regions"
    save_recordings(changed, folder)
    return folder


@pytest.fixture(scope="module")
def scored(model_path: Path, two_regions: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of these, of which one fifth of the images is held out."""
    out = tmp_path_factory.mktemp("scored") / "run"
    run = nrp_onnx(
        "score", model_path, "--recordings", two_regions, "-o", out, "--search", "quick",
        "--protocol", "paper", "--no-report",
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    return out


def _turned(recordings: Recordings, folder: Path, **changes: object) -> Path:
    """Saved with the sites in the opposite order."""
    save_recordings(
        replace(recordings.select_sites(range(5, -1, -1)), **changes),  # type: ignore[arg-type]
        folder,
    )
    return folder


def _scale(run: Path) -> np.ndarray:
    """Standard deviations over the training images, by hand."""
    table = pd.read_parquet(run / "predictions.parquet")
    recorded = np.stack(table["recorded"].to_list())[table["fold"].to_numpy() != 0]
    scale: np.ndarray = np.nanstd(recorded, axis=0)
    return scale


def test_numbers_are_those_of_the_predicted_rates(
    scored: Path, two_regions: Path, tmp_path: Path
) -> None:
    """With the sites in another order than the scorer's."""
    recordings = load_recordings(two_regions)
    folder = _turned(recordings, tmp_path / "monday", name="monday")
    out = tmp_path / "found.json"
    run = nrp_onnx("score", "--with", scored / "scorer.onnx", "--recordings", folder, "-o", out)
    assert run.returncode == 0, run.stderr
    assert "monday" in run.stdout
    assert "may have seen" not in run.stderr
    found = json.loads(out.read_text())
    predictor = nrp.load_predictor(scored / "predictor.onnx")
    rates = predictor.predict([str(path) for path in recordings.stimulus_paths])
    errors = np.abs(rates - recordings.averages) / _scale(scored)
    assert list(found["regions"]) == ["V4", "IT"]
    for name, region in found["regions"].items():
        of_region = errors[:, np.array(recordings.regions) == name]
        assert region["nrp_error"] == pytest.approx(np.nanmean(of_region), rel=1e-4)
        low, high = region["ci95"]
        assert low < region["nrp_error"] < high
        assert region["n_sites"] == of_region.shape[1]
        assert region["n_recorded"] == 40 * of_region.shape[1] - (name == "IT")
        assert f"{region['nrp_error']:.3f}" in run.stdout
    assert found["nrp_error"] == pytest.approx(
        np.mean([region["nrp_error"] for region in found["regions"].values()])
    )
    assert (found["units"], found["n_images"], found["simulated"]) == ("z", 40, False)
    assert found["provider"] == "CPUExecutionProvider"

    again = nrp_onnx("score", "--with", scored, "--recordings", folder, "--json")
    assert json.loads(again.stdout)["regions"] == found["regions"]


def test_the_held_out_images_give_the_score_of_the_run(scored: Path, two_regions: Path) -> None:
    """The error and, by the same draws of images, animals and sites, its interval."""
    recordings = load_recordings(two_regions)
    table = pd.read_parquet(scored / "predictions.parquet")
    held_out = recordings.without_stimuli(set(table["stimulus_id"][table["fold"] != 0]))
    assert held_out.n_stimuli == 8
    found = nrp.score_with(scored, held_out, progress=False)
    result = nrp.open_run(scored)
    for name, region in result.regions.items():
        assert found.regions[name].nrp_error == pytest.approx(region.nrp_error.value, rel=1e-4)
        assert found.regions[name].ci95 == pytest.approx(region.nrp_error.ci95, rel=1e-3)
    assert found.nrp_error == pytest.approx(result.nrp_error, rel=1e-4)
    assert found.ci95 == pytest.approx(result.ci95, rel=1e-3)
    other = nrp.score_with(scored, held_out, seed=1, progress=False)
    assert other.nrp_error == found.nrp_error
    assert other.ci95 != found.ci95
    # All of these images are new to it; of all recordings it has seen 32.
    assert not any("may have seen" in note for note in found.notes)
    every = nrp.score_with(scored, two_regions, progress=False)
    assert any("may have seen 32 of these 40 images" in note for note in every.notes)


def test_other_sites_regions_and_units_are_refused(
    scored: Path, two_regions: Path, tmp_path: Path
) -> None:
    recordings = load_recordings(two_regions)
    fewer = recordings.select_sites([0, 3, 4, 5])
    others = replace(recordings, site_ids=(*recordings.site_ids[:2], "a", "b", "c", "d"))
    for changed, parts in (
        (fewer, ["2 missing: 'V4_001', 'V4_002'", "the 6 sites of"]),
        (
            others,
            ["4 missing: 'V4_002', 'V4_003', 'V4_004' and 1 more",
             "4 not of the scorer: 'a', 'b', 'c' and 1 more"],
        ),
        (replace(recordings, regions=("V4", "V4", *recordings.regions[2:])),
         ["1 sites are in other regions", "V4_001 in V4 instead of IT"]),
        (replace(recordings, units="z"), ["other units", "expected spikes/s", "found z"]),
    ):  # fmt: skip
        with pytest.raises(nrp.RecordingsError) as error:
            nrp.score_with(scored, changed, progress=False)
        assert "\n" not in str(error.value)
        for part in parts:
            assert part in str(error.value)
    save_recordings(fewer, tmp_path / "fewer")
    assert_user_error(
        nrp_onnx("score", "--with", scored, "--recordings", tmp_path / "fewer"), "2 missing"
    )


def test_other_files_and_options_are_refused(
    scored: Path, two_regions: Path, model_path: Path, tmp_path: Path
) -> None:
    of = ("--recordings", two_regions)
    refused = {
        ("--with", scored / "predictor.onnx", *of): ["this is no scorer", "images in, rates out"],
        ("--with", tmp_path, *of): ["the folder has no scorer.onnx"],
        ("--with", tmp_path / "none.onnx", *of): ["none.onnx", "no such model file"],
        (model_path, "--with", scored, *of): ["nothing is trained with a scorer", "found MODEL"],
        ("--with", scored, *of, "--search", "quick", "--folds", 3, "--no-report"): [
            "found --search, --folds, --report"
        ],
        ("--search", "quick"): ["MODEL: no model is given", "--with scorer.onnx"],
        ("--with", scored, *of, "--fail-above", "nan"): ["--fail-above", "found nan"],
    }
    for given, parts in refused.items():
        assert_user_error(nrp_onnx("score", *given), *parts)
    proto = onnx.load(scored / "scorer.onnx")
    for entry in proto.metadata_props:
        if entry.key == "nrp_onnx.schema":
            entry.value = "12"
    onnx.save(proto, tmp_path / "newer.onnx")
    assert_user_error(
        nrp_onnx("score", "--with", tmp_path / "newer.onnx", *of),
        "the scorer is made by a newer version", "found 12",
    )  # fmt: skip


def test_a_scorer_that_sums_otherwise_is_refused(
    scored: Path, two_regions: Path, tmp_path: Path
) -> None:
    """One whose numbers are not the mean over the responses of what its scale says."""
    proto = onnx.load(scored / "scorer.onnx")
    (node,) = (node for node in proto.graph.node if "nrp_error" in node.output)
    node.input[0], node.input[1] = node.input[1], node.input[0]
    onnx.save(proto, tmp_path / "scorer.onnx")
    with pytest.raises(nrp.ModelError, match="the scorer's error in V4 is not that of its rates"):
        nrp.score_with(tmp_path / "scorer.onnx", two_regions, progress=False)


def test_a_region_without_responses_is_refused(scored: Path, two_regions: Path) -> None:
    recordings = load_recordings(two_regions)
    responses = recordings.responses.copy()
    responses[:, [1, 4]] = np.nan
    with pytest.raises(nrp.RecordingsError, match="the region IT has no response"):
        nrp.score_with(scored, replace(recordings, responses=responses), progress=False)
