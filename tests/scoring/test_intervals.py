"""What an interval is drawn over, from the fits of a score to what is read back and compared."""

from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow.parquet as pq
import pytest

from nrp_onnx.files import write_json
from nrp_onnx.recordings import Recordings
from nrp_onnx.scoring.comparison import compare_runs, paired_difference
from nrp_onnx.scoring.folds import Fits
from nrp_onnx.scoring.regions import (
    Measured,
    interval_words,
    measure_regions,
    notes_on_intervals,
)
from nrp_onnx.scoring.result import (
    SCHEMA_VERSION,
    ExportFacts,
    ModelFacts,
    Protocol,
    RecordingsFacts,
    Result,
    SearchFacts,
    Trials,
)
from nrp_onnx.scoring.run import FinishedRun, open_finished_run, read_run
from nrp_onnx.scoring.run_folder import write_predictions
from nrp_onnx.scoring.splits import outer_folds

N_IMAGES, N_SITES, N_SEEDS = 60, 24, 3
HEADLINE = "nrp+masked_ridge_calibrated"


@pytest.fixture(scope="module")
def recordings() -> Recordings:
    """Two regions; 2 animals of 3 sessions each, which all have sites of both regions."""
    rng = np.random.default_rng(0)
    drive = rng.standard_normal((N_IMAGES, N_SITES))
    responses = np.repeat(drive, 4, axis=0) + rng.standard_normal((4 * N_IMAGES, N_SITES))
    place = np.arange(N_SITES)
    return Recordings(
        name="toy",
        stimulus_ids=tuple(f"s{n}" for n in range(N_IMAGES)),
        stimulus_paths=(Path("x.png"),) * N_IMAGES,
        stimulus_labels={},
        site_ids=tuple(f"c{n}" for n in place),
        regions=("V4", "V4", "IT", "IT") * (N_SITES // 4),
        site_labels={
            "animal": tuple("ab"[n] for n in place % 2),
            "session": tuple(str(n) for n in place // 4 % 3),
        },
        responses=responses.astype(np.float32),
        presentation_stimulus=np.repeat(np.arange(N_IMAGES), 4),
        repetition=np.tile(np.arange(4, dtype=np.int32), N_IMAGES),
    )


def _fits(recordings: Recordings, seed: int, spread: float) -> Fits:
    """Predictions with errors of their own, larger at the sites of animal b."""
    rng = np.random.default_rng(seed)
    shape = recordings.averages.shape
    harder = np.where(np.array(recordings.site_labels["animal"]) == "b", 1.5, 1.0)
    by_seed = [
        recordings.averages + spread * harder * rng.standard_normal(shape) for _ in range(N_SEEDS)
    ]
    predictions = {
        "mean": np.zeros(shape) + rng.standard_normal(shape) * 0.01,
        "ridge": recordings.averages + harder * rng.standard_normal(shape),
        HEADLINE: by_seed[0],
    }
    scales = np.ones(shape)
    kept = np.arange(shape[0])
    return Fits(kept, predictions, by_seed, scales, cast(Any, None), 1, [], {}, HEADLINE)


def _finished(
    folder: Path, recordings: Recordings, seed: int, spread: float
) -> tuple[FinishedRun, Measured]:
    fits, folds = _fits(recordings, seed, spread), outer_folds(recordings, 5, 0)
    measured = measure_regions(recordings, fits, folds, seed=0)
    folder.mkdir()
    write_predictions(
        folder / "predictions.parquet", recordings, folds, fits.predictions, fits.scales, HEADLINE,
        fits.predictions_by_seed,
    )  # fmt: skip
    result = Result(
        schema_version=SCHEMA_VERSION,
        fingerprint="0" * 64,
        nrp_error=float(np.mean([one.nrp_error.value for one in measured.regions.values()])),
        nrp_error_ci95=measured.ci95,
        units="units",
        regions=measured.regions,
        model=ModelFacts("net.onnx", "0" * 64, 1, None, {}, []),
        recordings=RecordingsFacts("toy", False, N_IMAGES, N_SITES, "units", 0.0, "0" * 64),
        protocol=Protocol(
            "k-fold", 5, None, 0.2, "none", 0, interval_words(recordings, N_SEEDS), 0, N_SEEDS
        ),
        search=SearchFacts("quick", {}, Trials("trials.parquet", 0)),
        export=ExportFacts(0.0),
        provider="CPUExecutionProvider",
        notes=[],
        versions={},
        timings={},
        headline=HEADLINE,
    )
    write_json(folder / "result.json", result.to_json())
    return read_run(folder), measured


@pytest.fixture(scope="module")
def runs(recordings: Recordings, tmp_path_factory: pytest.TempPathFactory) -> list[FinishedRun]:
    folder = tmp_path_factory.mktemp("runs")
    return [
        _finished(folder / str(seed), recordings, seed, spread)[0]
        for seed, spread in ((1, 0.5), (2, 0.52), (3, 0.9))
    ]


def test_levels_and_what_is_few_are_said(recordings: Recordings) -> None:
    words = "95 %, bootstrap over images, seeds and sites in sessions in animals, 2000 resamples"
    assert interval_words(recordings, N_SEEDS) == words
    flat = replace(recordings, site_labels={})
    assert interval_words(flat, 1) == "95 %, bootstrap over images and sites, 2000 resamples"
    notes = notes_on_intervals(recordings)
    assert [note.partition(":")[0] for note in notes] == ["V4", "V4", "IT", "IT"]
    assert "fewer than 20 sites (12 here)" in notes[0]
    assert "2 animals are few" in notes[1]
    assert notes_on_intervals(replace(flat, regions=("IT",) * N_SITES)) == []


def test_every_seed_is_kept_and_drawn(recordings: Recordings, runs: list[FinishedRun]) -> None:
    fits, run = _fits(recordings, 1, 0.5), runs[0]
    names = pq.read_schema(run.folder / "predictions.parquet").names
    assert names[-3:] == [HEADLINE, f"{HEADLINE}.seed1", f"{HEADLINE}.seed2"]
    for found, given in zip(run.held_out.further_seeds, fits.predictions_by_seed[1:], strict=True):
        np.testing.assert_allclose(found, given, rtol=1e-5, atol=1e-6)
    by_seed = run.regions["V4"].nrp_error.by_seed
    assert len(set(by_seed)) == N_SEEDS
    assert by_seed[0] == run.regions["V4"].nrp_error.value
    # Read back, the resamples are those of the score.
    for name, region in run.regions.items():
        found = np.quantile(run.resampled(name, seed=0), [0.025, 0.975])
        np.testing.assert_allclose(found, region.nrp_error.ci95, rtol=1e-4)
    both = np.mean([run.resampled(name, seed=0) for name in run.regions], axis=0)
    np.testing.assert_allclose(np.quantile(both, [0.025, 0.975]), run.ci95, rtol=1e-4)


def test_animals_that_differ_widen_the_interval(
    recordings: Recordings, runs: list[FinishedRun]
) -> None:
    fits, folds = _fits(recordings, 1, 0.5), outer_folds(recordings, 5, 0)
    flat = measure_regions(replace(recordings, site_labels={}), fits, folds, seed=0)
    low, high = flat.ci95
    assert runs[0].ci95[1] - runs[0].ci95[0] > 1.5 * (high - low)
    for name, region in flat.regions.items():
        assert region.nrp_error.value == runs[0].regions[name].nrp_error.value
    # Each animal alone, without the other: what the draws of animals range over.
    nrp = np.abs(fits.predictions_by_seed[0] - recordings.averages)
    of = [nrp[:, np.array(recordings.site_labels["animal"]) == name].mean() for name in "ab"]
    assert runs[0].ci95[0] == pytest.approx(of[0], rel=0.1)
    assert runs[0].ci95[1] == pytest.approx(of[1], rel=0.1)


def test_comparisons_are_of_the_headline_with_every_other(runs: list[FinishedRun]) -> None:
    for region in runs[0].regions.values():
        assert list(region.comparisons) == ["mean", "ridge"]
        paired = region.comparisons["ridge"]
        assert paired.difference < 0
        assert paired.significant_sites is not None
        assert paired.significant_sites.better > paired.significant_sites.worse


def test_many_pairs_are_corrected_for(runs: list[FinishedRun]) -> None:
    found = compare_runs(runs, seed=0)
    assert [run.headline for run in found.runs] == [HEADLINE] * 3
    assert len(found.pairs) == 3
    p = sorted(pair.p for pair in found.pairs)
    holm = np.maximum.accumulate([3 * p[0], 2 * p[1], p[2]])
    np.testing.assert_allclose(sorted(pair.p_holm for pair in found.pairs), np.minimum(holm, 1))
    for pair in found.pairs:
        alone = paired_difference(
            open_finished_run(pair.first), open_finished_run(pair.second), seed=0
        )
        assert alone.ci95 == pair.ci95
        assert alone.p_holm == alone.p == pair.p
        widths = [high - low for low, high in (alone.ci95_simultaneous, pair.ci95_simultaneous)]
        assert widths[0] <= widths[1]
        apart = np.mean(
            [
                (runs_of[0].errors_of(name) - runs_of[1].errors_of(name)).mean()
                for runs_of in [(open_finished_run(pair.first), open_finished_run(pair.second))]
                for name in ("V4", "IT")
            ]
        )
        assert pair.difference == pytest.approx(apart)
        squares = pair.regions["V4"]
        assert squares.mse_ci95 is not None
        assert squares.mse_ci95[0] < squares.mse_difference < squares.mse_ci95[1]  # type: ignore[operator]


NEW_KEYS = {"mse", "mse_ci95", "r2_normalised", "r2_normalised_ci95"}
NEW_PAIRED = {"mse_difference", "mse_ci95", "significant_sites"}


def test_results_of_an_older_version_are_read(runs: list[FinishedRun], tmp_path: Path) -> None:
    content = runs[0].result.to_json()
    del content["nrp_error_ci95"]
    content["protocol"]["seeds"] = 1
    for region in content["regions"].values():
        for score in region["predictors"].values():
            for key in NEW_KEYS:
                del score[key]
        for paired in region["comparisons"].values():
            for key in NEW_PAIRED:
                del paired[key]
    write_json(tmp_path / "result.json", content)
    table = pq.read_table(runs[0].folder / "predictions.parquet")
    metadata = {key: value for key, value in table.schema.metadata.items() if b"levels" not in key}
    kept = [name for name in table.column_names if ".seed" not in name]
    pq.write_table(
        table.select(kept).replace_schema_metadata(metadata), tmp_path / "predictions.parquet"
    )
    old = read_run(tmp_path)
    assert old.regions["V4"].predictors["ridge"].mse is None
    assert old.held_out.further_seeds == ()
    assert old.levels_of("V4") == ()
    low, high = old.ci95
    assert low < old.nrp_error < high
    assert old.to_frame()["mse"].isna().all()
    from nrp_onnx.report.page_tables import predictors_table
    from nrp_onnx.report.terminal import score_table

    assert score_table(old.result).row_count > 0
    assert not any("MSE" in heading for heading, _ in predictors_table(old).headings)
