"""The commands of examples/ci run, pass a good model and stop a worse one."""

import json
import re
import shlex
import shutil
from pathlib import Path

import pytest
import yaml

from tests.command_line import Finished, nrp_onnx

CI = Path(__file__).parents[1] / "examples" / "ci"
pytestmark = pytest.mark.slow


def _of_workflow() -> list[str]:
    """What the steps of score.yml run, but for pip."""
    steps = yaml.safe_load((CI / "score.yml").read_text())["jobs"]["score"]["steps"]
    lines = [line for step in steps for line in step.get("run", "").splitlines()]
    assert [line.split()[0] for line in lines if not line.startswith("nrp-onnx")] == ["pip", "pip"]
    return [line for line in lines if line.startswith("nrp-onnx")]


def _of_dockerfile() -> tuple[list[str], list[str]]:
    """What building the container runs of ours, and what its start does, in a row that stops at a failure."""
    text = (CI / "Dockerfile").read_text()
    (start,) = re.findall(r"^CMD (.+)$", text, re.MULTILINE)
    shell, option, script = json.loads(start)
    assert (shell, option) == ("sh", "-c")
    return re.findall(r"^RUN (nrp-onnx .+)$", text, re.MULTILINE), script.split(" && ")


def _run(command: str, folder: Path) -> Finished:
    program, *arguments = shlex.split(command)
    assert program == "nrp-onnx"
    return nrp_onnx(*arguments, cwd=folder)


@pytest.fixture
def repository(model_path: Path, recordings_folder: Path, tmp_path: Path) -> Path:
    """What README.md asks for, the baseline made by its own commands."""
    shutil.copy(model_path, tmp_path / "model.onnx")
    shutil.copytree(recordings_folder, tmp_path / "recordings")
    text = (CI / "README.md").read_text()
    (first,) = re.findall(r"^    (nrp-onnx score model.+)$", text, re.MULTILINE)
    assert _run(first, tmp_path).returncode == 0
    (copied,) = re.findall(r"^    cp (.+) baseline$", text, re.MULTILINE)
    (tmp_path / "baseline").mkdir()
    for name in copied.split():
        shutil.copy(tmp_path / name, tmp_path / "baseline")
    shutil.rmtree(tmp_path / "first")
    return tmp_path


def test_the_workflow_passes_the_same_model(repository: Path) -> None:
    score, compare = _of_workflow()
    for command in (score, compare):
        run = _run(command, repository)
        assert run.returncode == 0, run.stderr
    assert (repository / "run" / "report.html").is_file()
    # The bound stops it where it is lower, and files are left for the step that keeps them.
    assert "--fail-above 1.0" in score
    run = _run(score.replace("--fail-above 1.0", "--fail-above 0.1"), repository)
    assert run.returncode == 1
    assert run.stderr.rstrip().endswith("is above 0.1")

    text = (CI / "README.md").read_text()
    (new,) = re.findall(r"^    (nrp-onnx score --with.+)$", text, re.MULTILINE)
    shutil.copytree(repository / "recordings", repository / "session")
    run = _run(new, repository)
    assert run.returncode == 0, run.stderr
    assert json.loads((repository / "session.json").read_text())["regions"]["V4"]["nrp_error"] < 1.2


def test_the_container_runs_the_same_and_stops_a_worse_model(repository: Path) -> None:
    build, start = _of_dockerfile()
    assert build == ["nrp-onnx doctor"]
    assert start == _of_workflow()
    for command in (*build, *start):
        run = _run(command, repository)
        assert run.returncode == 0, run.stderr
    _make_better(repository / "baseline" / "predictions.parquet")
    run = _run(start[-1], repository)
    assert run.returncode == 1
    assert run.stderr.startswith("V4: run is worse than baseline")


def _make_better(predictions: Path) -> None:
    """Halve the errors of the stored run."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pq.read_table(predictions)
    recorded, predicted = (np.stack(table[name].to_numpy()) for name in ("recorded", "nrp+ridge"))
    place = table.column_names.index("nrp+ridge")
    field = table.schema.field(place)
    column = pa.array(list((recorded + predicted) / 2), field.type)
    pq.write_table(table.set_column(place, field, column), predictions)
