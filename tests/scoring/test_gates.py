"""What makes a pipeline fail, through exit codes and what is printed."""

import json
from pathlib import Path

import numpy as np
import pytest

from nrp_onnx.bootstrap import bootstrap_means
from nrp_onnx.scoring.gates import regions_above
from nrp_onnx.scoring.run import read_run
from tests.command_line import Finished, nrp_onnx


def test_regions_above_a_bound() -> None:
    errors = {"V4": 0.5871, "IT": 0.6118, "TE": 0.60004, "TEO": float("nan"), "V1": 0.6}
    assert regions_above(errors, 0.6) == [
        "IT: NRP-error 0.612 is above 0.6",
        "TE: NRP-error 0.60004 is above 0.6",
        "TEO: NRP-error nan is above 0.6",
    ]
    assert regions_above({"V4": 0.5871}, 0.5871) == []


@pytest.fixture(scope="module")
def runs(
    model_path: Path, recordings_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """A run, and copies of it that predict much worse, better, and the same but for one image."""
    import shutil

    import pyarrow as pa
    import pyarrow.parquet as pq

    folder = tmp_path_factory.mktemp("gates")
    run = nrp_onnx(
        "score", model_path, "--recordings", recordings_folder, "-o", folder / "first",
        "--search", "quick", "--protocol", "paper", "--no-report",
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    table = pq.read_table(folder / "first" / "predictions.parquet")
    recorded, predicted = (np.stack(table[name].to_numpy()) for name in ("recorded", "nrp+ridge"))
    one = predicted.copy()
    one[np.flatnonzero(table["fold"].to_numpy() == 0)[0], 0] += 0.1
    changed = {
        "worse": recorded + 1.5 * (predicted - recorded),
        "better": recorded + 0.5 * (predicted - recorded),
        "alike": one,
    }
    place = table.column_names.index("nrp+ridge")
    for name, rates in changed.items():
        shutil.copytree(folder / "first", folder / name)
        column = pa.array(list(rates), table.schema.field(place).type)
        pq.write_table(
            table.set_column(place, table.schema.field(place), column),
            folder / name / "predictions.parquet",
        )
    return {name: folder / name for name in ("first", *changed)}


@pytest.mark.slow
def test_compare_fails_if_the_last_run_is_worse(runs: dict[str, Path]) -> None:
    first = runs["first"]

    def compared(*names: str, gate: str = "--fail-if-worse") -> Finished:
        return nrp_onnx("compare", *(runs[name] for name in names), gate)

    run = compared("first", "worse")
    assert run.returncode == 1
    errors, others = (read_run(runs[name]).errors_of("V4") for name in ("worse", "first"))
    apart = bootstrap_means(errors, 0) - bootstrap_means(others, 0)
    low, high = np.quantile(apart, [0.025, 0.975])
    assert run.stderr == (
        f"V4: {runs['worse']} is worse than {first}: NRP-error {(errors - others).mean():+.3f} "
        f"[{low:+.3f}, {high:+.3f}] z\n"
    )
    assert "NRP-error" in run.stdout, "the tables come first"
    # The other way round, undecided, and better: no failure. The middle one of three does not count.
    for names in (("worse", "first"), ("first", "alike"), ("first", "better")):
        assert (compared(*names).returncode, compared(*names).stderr) == (0, "")
    assert compared("first", "worse", "better").returncode == 0
    assert compared("better", "worse", "first").returncode == 1
    as_json = nrp_onnx("compare", first, runs["worse"], "--fail-if-worse", "--json")
    assert as_json.returncode == 1
    assert json.loads(as_json.stdout)["pairs"]
    assert nrp_onnx("compare", first, runs["worse"]).returncode == 0
    assert nrp_onnx("compare", first, "nothing", "--fail-if-worse").returncode == 2


@pytest.mark.slow
def test_score_fails_above_a_bound_and_leaves_its_files(
    runs: dict[str, Path], model_path: Path, recordings_folder: Path, tmp_path: Path
) -> None:
    """Of a finished run, and with its scorer."""
    error = json.loads((runs["first"] / "result.json").read_text())["nrp_error"]
    out = tmp_path / "run"
    given = (
        "score", model_path, "--recordings", recordings_folder, "-o", out, "--search", "quick",
        "--protocol", "paper", "--no-report",
    )  # fmt: skip
    run = nrp_onnx(*given, "--fail-above", error - 0.01, "--json")
    assert run.returncode == 1
    assert run.stderr.splitlines()[-1] == f"V4: NRP-error {error:.3f} is above {error - 0.01:g}"
    assert json.loads(run.stdout)["nrp_error"] == pytest.approx(error)
    assert (out / "scorer.onnx").is_file()
    assert nrp_onnx(*given, "--fail-above", error + 0.01).returncode == 0

    with_scorer = ("score", "--with", out, "--recordings", recordings_folder)
    found = json.loads(nrp_onnx(*with_scorer, "--json").stdout)["nrp_error"]
    file = tmp_path / "found.json"
    run = nrp_onnx(*with_scorer, "--fail-above", found / 2, "-o", file)
    assert run.returncode == 1
    assert run.stderr.splitlines()[-1] == f"V4: NRP-error {found:.3f} is above {found / 2:g}"
    assert json.loads(file.read_text())["nrp_error"] == found
    assert nrp_onnx(*with_scorer, "--fail-above", 2 * found).returncode == 0
