"""Paired comparison of predictors and of runs, recomputed with pandas from what a run leaves."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from nrp_onnx.statistics import bootstrap_means, compare_errors, explainable_removed
from tests.command_line import assert_user_error, nrp_onnx

#: Together they take over ten seconds of a core.
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def runs(
    model_path: Path, recordings_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> list[Path]:
    """Two runs with other layers of the same model."""
    folder = tmp_path_factory.mktemp("runs")
    found = []
    for layers in ("1", "3"):
        run = nrp_onnx(
            "score", model_path, "--recordings", recordings_folder, "-o", folder / layers,
            "--search", "quick", "--layers", layers, "--protocol", "paper",
        )  # fmt: skip
        assert run.returncode == 0, run.stderr
        assert "single held-out fifth" in run.stdout
        found.append(folder / layers)
    return found


def _errors(run: Path, predictor: str) -> np.ndarray:
    """|z| of the held-out images, by hand."""
    table = pd.read_parquet(run / "predictions.parquet")
    recorded, predicted = (np.stack(table[name].to_list()) for name in ("recorded", predictor))
    held_out = table["fold"].to_numpy() == 0
    assert np.isnan(predicted[~held_out]).all()
    deviation: np.ndarray = np.nanstd(recorded[~held_out], axis=0)
    return np.asarray(np.abs(predicted - recorded)[held_out] / deviation)


def test_paper_protocol_holds_a_stratified_fifth_out(
    runs: list[Path], recordings_folder: Path
) -> None:
    result = json.loads((runs[0] / "result.json").read_text())
    assert result["protocol"]["name"] == "paper"
    assert result["protocol"]["folds"] == 1
    table = pd.read_parquet(runs[0] / "predictions.parquet")
    held_out = table[table["fold"] == 0]["stimulus_id"]
    names = pd.read_csv(recordings_folder / "stimuli.csv").set_index("stimulus_id")["object_name"]
    assert names[held_out].value_counts().to_dict() == {"a": 4, "b": 4}


def test_comparisons_in_a_result_are_those_of_the_predictions(runs: list[Path]) -> None:
    region = json.loads((runs[0] / "result.json").read_text())["regions"]["V4"]
    nrp = _errors(runs[0], "nrp+ridge")
    assert set(region["comparisons"]) == set(region["predictors"]) - {"nrp+ridge"}
    floor = region["noise_floor"]
    for name, found in region["comparisons"].items():
        apart = nrp - _errors(runs[0], name)
        assert found["difference"] == pytest.approx(apart.mean(), abs=1e-5)
        assert found["wins"] == (apart.mean(axis=0) < 0).sum()
        assert found["n_sites"] == 6
        assert found["ci95"][0] < found["difference"] < found["ci95"][1]
    for name, found in region["predictors"].items():
        mean = _errors(runs[0], "mean").mean()
        share = (mean - _errors(runs[0], name).mean()) / (mean - floor)
        assert found["explainable_removed"] == pytest.approx(share, abs=1e-4)


def test_interval_of_a_difference_is_that_of_independent_differences() -> None:
    """With sites alike, the interval is that of a mean over images; shared noise does not widen it."""
    rng = np.random.default_rng(0)
    shared, apart = rng.exponential(5, (500, 1)), rng.standard_normal((500, 1)) - 0.1
    errors, other = shared + 20 + apart, shared + 20
    errors, other = np.tile(errors, 4), np.tile(-other, 4)
    means = [bootstrap_means(np.abs(found), seed=1) for found in (errors, other)]
    found = compare_errors(errors, other, means[0] - means[1])
    half = 1.96 * apart.std() / np.sqrt(500)
    assert found.difference == pytest.approx(apart.mean())
    np.testing.assert_allclose(found.ci95, [apart.mean() - half, apart.mean() + half], atol=0.02)
    assert found.wins == 4


def test_explainable_error_removed() -> None:
    assert explainable_removed(0.8, 0.8, 0.4) == 0
    assert explainable_removed(0.4, 0.8, 0.4) == pytest.approx(1)
    assert explainable_removed(0.7, 0.8, 0.4) == pytest.approx(0.25)
    assert explainable_removed(0.7, 0.8, None) is None
    assert explainable_removed(0.7, 0.8, 0.8) is None


def test_compared_runs_are_ranked_by_their_paired_differences(
    runs: list[Path], tmp_path: Path
) -> None:
    run = nrp_onnx("compare", *runs, "--json", "-o", tmp_path / "leaderboard.csv")
    assert run.returncode == 0, run.stderr
    found = json.loads(run.stdout)
    value = {str(folder): _errors(folder, "nrp+ridge").mean() for folder in runs}
    order = sorted(value, key=value.__getitem__)
    assert [listed["folder"] for listed in found["runs"]] == order
    assert [listed["rank"] for listed in found["runs"]] == [1, 2]
    for listed in found["runs"]:
        assert listed["nrp_error"] == pytest.approx(value[listed["folder"]], abs=1e-5)
        result = json.loads((Path(listed["folder"]) / "result.json").read_text())
        assert listed["nrp_error"] == pytest.approx(result["nrp_error"], abs=1e-5)
        np.testing.assert_allclose(
            listed["ci95"], result["regions"]["V4"]["nrp_error"]["ci95"], atol=1e-5
        )
    (pair,) = found["pairs"]
    apart = _errors(Path(order[0]), "nrp+ridge") - _errors(Path(order[1]), "nrp+ridge")
    assert pair["difference"] == pytest.approx(apart.mean(), abs=1e-5)
    assert pair["wins"] == (apart.mean(axis=0) < 0).sum()
    # Of one pair alone nothing is corrected; the interval is that of a normal of the same spread.
    assert pair["p_holm"] == pair["p"]
    assert (pair["p"] < 0.05) == (pair["ci95"][0] * pair["ci95"][1] > 0)
    low, high = pair["ci95_simultaneous"]
    assert (low + high) / 2 == pytest.approx(pair["difference"])
    np.testing.assert_allclose([low, high], pair["ci95"], atol=0.15 * (high - low))
    # Both ranks are possible exactly where the interval of the difference holds 0.
    assert (found["runs"][0]["rank_ci95"] == [1, 2]) == (pair["ci95"][1] > 0)
    board = pd.read_csv(tmp_path / "leaderboard.csv")
    assert board["run"].to_list() == order
    np.testing.assert_allclose(board["nrp_error"], [value[folder] for folder in order], atol=1e-5)
    table = nrp_onnx("compare", *runs)
    assert "Paired differences" in table.stdout
    assert f"{pair['wins']} of 6 sites" in table.stdout


def test_runs_that_do_not_belong_together_are_one_line(runs: list[Path], tmp_path: Path) -> None:
    def changed(change) -> Path:
        folder = tmp_path / f"changed{len(list(tmp_path.iterdir()))}"
        shutil.copytree(runs[1], folder, ignore=shutil.ignore_patterns("activations", "*.onnx"))
        result = json.loads((folder / "result.json").read_text())
        change(result)
        (folder / "result.json").write_text(json.dumps(result))
        return folder

    other_data = changed(lambda result: result["recordings"].update(fingerprint="f" * 64))
    other_units = changed(lambda result: result["protocol"].update(normalise="none"))
    no_protocol = changed(lambda result: result.pop("protocol"))
    other_fold = changed(lambda result: None)
    table = pd.read_parquet(other_fold / "predictions.parquet")
    import pyarrow as pa
    import pyarrow.parquet as pq

    metadata = pq.read_schema(other_fold / "predictions.parquet").metadata
    table["fold"] = table["fold"].to_numpy()[::-1].copy()
    again = pa.Table.from_pandas(table, preserve_index=False).replace_schema_metadata(metadata)
    pq.write_table(again, other_fold / "predictions.parquet")
    first = runs[0]
    cases: list[tuple[tuple[Path, ...], list[object]]] = [
        ((first, other_data), [first, other_data, "same recordings", "ffffffffffff"]),
        ((first, other_units), [first, other_units, "same normalisation", "zscore and none"]),
        ((first, other_fold), [first, other_fold, "same held-out images"]),
        ((first, no_protocol), [no_protocol, "protocol", "--overwrite"]),
        ((first, tmp_path), [tmp_path / "result.json", "no finished run"]),
        ((first,), ["two or more"]),
        ((first, first), ["each once"]),
    ]
    for arguments, parts in cases:
        assert_user_error(nrp_onnx("compare", *arguments), *parts)
