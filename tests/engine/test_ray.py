"""Tasks on Ray: a cluster that loses a node, the same bytes as in one process, errors of a user."""

import json
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pyarrow.parquet as pq
import pytest
import torch
from torch import nn

from nrp_onnx.api import score_with
from nrp_onnx.engine import LocalEngine, open_engine
from nrp_onnx.errors import EngineError, OptionError
from nrp_onnx.scoring.options import ScoreOptions
from tests.command_line import assert_user_error, nrp_onnx_process

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.skipif(sys.platform == "win32", reason="Ray's clusters need POSIX"),
]

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def other_model(model_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small network with other weights."""
    from nrp_converters.torch.modules import convert
    from nrp_onnx.backbone.preprocessing import PRESETS

    torch.manual_seed(1)
    network = nn.Sequential(nn.Conv2d(3, 6, 3, stride=2), nn.ReLU(), nn.Conv2d(6, 4, 3), nn.ReLU())
    path = tmp_path_factory.mktemp("other") / "other.onnx"
    convert(network.eval(), torch.zeros(1, 3, 32, 32), preprocessing=PRESETS["tf"]).save(path)
    return path


def assert_same_run(ours: Path, local: Path) -> None:
    """All that was computed, to the byte; result.json but for times and what was said of the way.

    That is how fast batches were, and that a task which began again found what the lost one left.
    """
    of_the_way = ("batches of", "the activations are there already")
    files = ["trials.parquet", "predictions.parquet", "sites.csv", "head.onnx", "predictor.onnx"]
    files += [f"activations/{path.name}" for path in (local / "activations").glob("*.parquet")]
    assert len(files) > 6
    for name in files:
        assert (ours / name).read_bytes() == (local / name).read_bytes(), name
    results = [json.loads((run / "result.json").read_text()) for run in (ours, local)]
    for result in results:
        del result["timings"]
        result["notes"] = [note for note in result["notes"] if not note.startswith(of_the_way)]
    assert results[0] == results[1]
    left = {path.name for path in ours.iterdir()} - {path.name for path in local.iterdir()}
    assert not left


def run_cluster(program: str, *arguments: object) -> dict[str, object]:
    run = subprocess.run(
        [sys.executable, "-m", f"tests.engine.{program}", *map(str, arguments)],
        capture_output=True, text=True, check=False, cwd=ROOT, timeout=400,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    found: dict[str, object] = json.loads(run.stdout.splitlines()[-1])
    return found


def test_two_models_on_a_cluster_that_loses_a_node(
    model_path: Path, other_model: Path, recordings_folder: Path, tmp_path: Path
) -> None:
    happened = run_cluster(
        "ray_cluster", recordings_folder, tmp_path / "ray", model_path, other_model
    )
    assert happened["unfinished"] == [True, True]
    assert happened["nodes_left"] == 2  # the head, which runs no tasks, and one more
    assert happened["scored"] == [model_path.stem, other_model.stem]
    assert happened["failed"] == {}
    for model in (model_path, other_model):
        local = tmp_path / "local" / model.stem
        options = ScoreOptions(search="quick", report=False, device="cpu")
        score_with(model, str(recordings_folder), local, options)
        assert_same_run(tmp_path / "ray" / model.stem, local)


def test_shards_and_folds_of_one_model(
    model_path: Path, recordings_folder: Path, tmp_path: Path
) -> None:
    """By the command line, which starts Ray on this machine; run again, nothing is computed."""
    common = ["--recordings", recordings_folder, "--search", "quick", "--device", "cpu",
              "--no-report"]  # fmt: skip
    for name, more in {"local": [], "ray": ["--engine", "ray"]}.items():
        run = nrp_onnx_process("score", model_path, *common, *more, "-o", name, cwd=tmp_path)
        assert run.returncode == 0, run.stderr
    assert_same_run(tmp_path / "ray", tmp_path / "local")
    trials = pq.read_table(tmp_path / "ray" / "trials.parquet")
    assert sorted(set(trials["fold"].to_pylist())) == [0, 1, 2, 3, 4]


def test_a_search_that_ended_early_goes_on_in_tasks(
    model_path: Path, recordings_folder: Path, tmp_path: Path
) -> None:
    """A local run is cut back to its first trials; the tasks of a cluster find them."""
    run = run_cluster("ray_resume", recordings_folder, tmp_path, model_path)
    assert run["found"] == 1
    assert run["same"] is True


def test_many_shards_give_the_bytes_of_one(model_path: Path, tmp_path: Path) -> None:
    run = run_cluster("ray_shards", model_path, tmp_path)
    assert run["shards"] == 4  # 200 images in steps of 64
    assert run["same"] == ["1.parquet", "3.parquet", "components/1.parquet"]
    assert run["computed_again"] == 1


def test_an_error_in_a_task_is_one_line(model_path: Path, tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "broken.png").write_bytes(b"no image")
    run = nrp_onnx_process(
        "extract", model_path, "--images", tmp_path / "images", "--device", "cpu",
        "--engine", "ray", "-o", tmp_path / "out",
    )  # fmt: skip
    assert_user_error(run, "broken.png", "the image does not open", "--skip-bad-stimuli")


def test_an_address_without_a_cluster(model_path: Path, tmp_path: Path) -> None:
    run = nrp_onnx_process(
        "score", model_path, "--engine", "ray", "--ray-address", "127.0.0.1:1", "-o", tmp_path / "o"
    )
    assert_user_error(run, "--ray-address 127.0.0.1:1", "no Ray cluster answers", "ray start")


def test_without_ray_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(EngineError, match=r"pip install 'nrp-onnx\[ray\]'"):
        open_engine("ray")


@pytest.mark.parametrize(
    ("asked", "variable", "given"),
    [
        (None, None, "local"),  # a new cluster, whatever runs on this machine
        (None, "127.0.0.1:PORT", "127.0.0.1:PORT"),
        ("auto", "127.0.0.1:PORT", "auto"),
    ],
)
def test_ray_is_given_an_address_always(
    asked: str | None, variable: str | None, given: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    inits: list[str] = []
    ray = SimpleNamespace(
        is_initialized=lambda: False, init=lambda address, **_: inits.append(address), nodes=list
    )
    monkeypatch.setitem(sys.modules, "ray", ray)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = str(server.getsockname()[1])
        if variable is None:
            monkeypatch.delenv("RAY_ADDRESS", raising=False)
        else:
            monkeypatch.setenv("RAY_ADDRESS", variable.replace("PORT", port))
        open_engine("ray", asked)
    assert inits == [given.replace("PORT", port)]


def test_engines_that_make_no_sense() -> None:
    with pytest.raises(OptionError, match="local or ray"):
        open_engine("spark")
    with pytest.raises(OptionError, match="--engine ray beside it"):
        open_engine("local", "127.0.0.1:6379")


def test_the_local_engine_waits_for_who_asks() -> None:
    begun: list[int] = []
    results = LocalEngine().map(begun.append, [1, 2])
    assert begun == []
    next(results)
    assert begun == [1]
