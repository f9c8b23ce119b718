"""What keeps a run from being taken for another one."""

import json
import shutil
from pathlib import Path

import filelock
import pytest

from nrp_onnx.errors import RunError
from nrp_onnx.scoring.comparison import compare_runs
from nrp_onnx.scoring.result import ALGORITHM_VERSION
from nrp_onnx.scoring.run import open_finished_run
from tests.command_line import Finished, assert_user_error, nrp_onnx

# Each scores, some of them several times.
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def finished(
    model_path: Path, recordings_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    out = tmp_path_factory.mktemp("finished") / "run"
    run = _score(model_path, recordings_folder, out)
    assert run.returncode == 0, run.stderr
    return out


def _score(model: Path, recordings: Path, out: Path, *more: object) -> Finished:
    return nrp_onnx(
        "score", model, "--recordings", recordings, "-o", out, "--search", "quick", "--no-report",
        "--device", "cpu", *more,
    )  # fmt: skip


def _edit(path: Path, **changed: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changed}))


def test_a_finished_run_is_handed_back(
    finished: Path, model_path: Path, recordings_folder: Path
) -> None:
    before = (finished / "result.json").read_bytes()
    run = _score(model_path, recordings_folder, finished)
    assert "holds this very run, finished" in run.stderr
    assert (finished / "result.json").read_bytes() == before


def test_a_run_of_another_algorithm_version_is_another_run(
    finished: Path, model_path: Path, recordings_folder: Path, tmp_path: Path
) -> None:
    """Its numbers may differ, so it must not be handed back as this very run."""
    old = shutil.copytree(finished, tmp_path / "old")
    _edit(old / "run.json", algorithm_version=0)
    run = _score(model_path, recordings_folder, old)
    expected = f"expected algorithm_version {ALGORITHM_VERSION}"
    assert_user_error(run, "another run", expected, "found algorithm_version 0")
    again = _score(model_path, recordings_folder, old, "--overwrite")
    assert again.returncode == 0, again.stderr
    assert json.loads((old / "result.json").read_text())["algorithm_version"] == ALGORITHM_VERSION


def test_runs_of_two_algorithm_versions_are_not_compared(finished: Path, tmp_path: Path) -> None:
    old = shutil.copytree(finished, tmp_path / "old")
    _edit(old / "result.json", algorithm_version=0)
    runs = [open_finished_run(finished), open_finished_run(old)]
    both = f"the same algorithm version.*found {ALGORITHM_VERSION} and 0.*--overwrite"
    with pytest.raises(RunError, match=both):
        compare_runs(runs)


def test_a_second_process_is_kept_out(
    finished: Path, model_path: Path, recordings_folder: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    with filelock.FileLock(folder / ".lock"):
        run = _score(model_path, recordings_folder, folder)
        assert_user_error(run, "another process is scoring into this folder", folder, "Wait for it")
    assert _score(model_path, recordings_folder, folder).returncode == 0


def test_a_folder_of_somebody_else_stays_as_it_is(
    model_path: Path, recordings_folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "diary.txt").write_text("mine")
    run = _score(model_path, recordings_folder, tmp_path)
    assert_user_error(run, "something else than a run", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["diary.txt"]


def test_a_damaged_result_is_named_with_its_place(
    finished: Path, model_path: Path, recordings_folder: Path, tmp_path: Path
) -> None:
    damaged = shutil.copytree(finished, tmp_path / "damaged")
    _edit(damaged / "result.json", nrp_error="much")
    again = _score(model_path, recordings_folder, damaged)
    assert_user_error(again, "result.json", "damaged", "$.nrp_error", "--overwrite")
    with pytest.raises(RunError, match=r"expected result.json.*found .*float.*\$\.nrp_error"):
        open_finished_run(damaged)


def test_the_stratification_is_that_of_the_images_that_are_left(
    raw_data: Path, model_path: Path, tmp_path: Path
) -> None:
    """A class of six loses four: it cannot reach five folds any more, and the result says so."""
    data = shutil.copytree(raw_data, tmp_path / "data")
    lines = (data / "stimuli.csv").read_text().splitlines()
    few = [line for line in lines[1:] if line.endswith(",b")][:14]
    kept = [line for line in lines if line not in few]
    relabelled = [line.replace(",b", ",a") for line in few]
    (data / "stimuli.csv").write_text("\n".join([kept[0], *sorted(kept[1:] + relabelled)]) + "\n")
    imported = nrp_onnx(
        "recordings", "import", data / "images", data / "rates.npy", "--axes",
        "site,stimulus,repetition", "--region", "V4", "--stimuli", data / "stimuli.csv", "-o",
        tmp_path / "recordings",
    )  # fmt: skip
    assert imported.returncode == 0, imported.stderr
    whole = _score(model_path, tmp_path / "recordings", tmp_path / "whole")
    assert "stratified_on" in (tmp_path / "whole" / "result.json").read_text(), whole.stderr
    result = json.loads((tmp_path / "whole" / "result.json").read_text())
    assert result["protocol"]["stratified_on"] == "object_name"
    rest = [line.split(",")[1] for line in kept[1:] if line.endswith(",b")]
    for name in rest[:4]:
        (tmp_path / "recordings" / "stimuli" / name).write_bytes(b"no image")
    left = _score(model_path, tmp_path / "recordings", tmp_path / "left", "--skip-bad-stimuli")
    assert left.returncode == 0, left.stderr
    result = json.loads((tmp_path / "left" / "result.json").read_text())
    assert len(result["recordings"]["skipped_stimuli"]) == 4
    assert result["protocol"]["stratified_on"] is None
    assert "the folds are not stratified" in left.stderr


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (FileNotFoundError(2, "No such file or directory", "photo.png"), 2, "photo.png: No such"),
        (OSError(28, "No space left on device"), 2, "file system: No space left on device"),
        (OSError(5, "Input/output error"), 1, "unexpected OSError"),
        (OSError("nobody knows"), 1, "Please report it, with the output of NRP_ONNX_DEBUG=1"),
        (
            ZeroDivisionError("division by zero"),
            1,
            "unexpected ZeroDivisionError: division by zero",
        ),
    ],
)
def test_only_what_a_user_can_mend_is_a_users_error(
    error: Exception, code: int, said: str, model_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("nrp_onnx.api.score_with", fail)
    run = nrp_onnx("score", model_path)
    assert run.returncode == code
    assert len(run.stderr.splitlines()) == 1
    assert said in run.stderr
    monkeypatch.setenv("NRP_ONNX_DEBUG", "1")
    assert "Traceback (most recent call last)" in nrp_onnx("score", model_path).stderr
