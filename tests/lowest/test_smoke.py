"""What must work with the lowest versions of the dependencies: `make test-lowest` runs this there."""

import importlib
import json
import pkgutil
from pathlib import Path

import h5py
import numpy as np
import onnxruntime as ort
import pyarrow.parquet as pq
import pytest
from PIL import Image

import nrp_onnx
from tests.command_line import nrp_onnx as command

pytestmark = pytest.mark.slow

NETWORK = """
from torch import nn

def make():
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2), nn.ReLU(), nn.Conv2d(8, 12, 3, stride=2), nn.ReLU(),
        nn.Flatten(), nn.Linear(12 * 7 * 7, 5),
    )
"""


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a backbone and a finished run on simulated recordings."""
    folder = tmp_path_factory.mktemp("desk")
    (folder / "net.py").write_text(NETWORK)
    for given in (
        "convert torch:net.py:make -o net.onnx --preprocess tf --input-size 32x32",
        "score net.onnx --recordings simulated:120 --search quick --device cpu -o run",
    ):
        run = command(*given.split(), cwd=folder)
        assert run.returncode == 0, run.stderr
    return folder


def test_every_module_of_the_core_is_imported() -> None:
    names = [found.name for found in pkgutil.walk_packages(nrp_onnx.__path__, "nrp_onnx.")]
    assert len(names) > 50
    for name in names:
        if not name.endswith("__main__"):
            importlib.import_module(name)
    assert all(getattr(nrp_onnx, name) is not None for name in nrp_onnx.__all__)


def test_the_help_of_commands_is_shown() -> None:
    for arguments in (["--help"], ["score", "--help"], ["recordings", "import", "--help"]):
        run = command(*arguments)
        assert run.returncode == 0, run.stderr
        assert "Usage" in run.stdout


def test_a_score_is_written_whole(desk: Path) -> None:
    result = json.loads((desk / "run" / "result.json").read_text())
    assert set(result["regions"]) == {"V4", "IT"}
    errors = [region["nrp_error"]["value"] for region in result["regions"].values()]
    assert result["nrp_error"] == pytest.approx(np.mean(errors))
    assert "SIMULATED" in (desk / "run" / "report.html").read_text(encoding="utf-8")


def test_the_predictor_predicts_what_was_scored(desk: Path) -> None:
    """By the command, and in ONNX Runtime alone."""
    pixels = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(desk / "image.png")
    run = command("predict", "run/predictor.onnx", "image.png", "-o", "rates.parquet", cwd=desk)
    assert run.returncode == 0, run.stderr
    row = pq.read_table(desk / "rates.parquet").to_pylist()[0]
    session = ort.InferenceSession(
        desk / "run" / "predictor.onnx", providers=["CPUExecutionProvider"]
    )
    (rates,) = session.run(None, {session.get_inputs()[0].name: pixels[None]})
    assert rates.shape == (1, 256)
    np.testing.assert_allclose(list(row.values())[1:], rates[0], rtol=1e-4, atol=1e-5)


def test_the_predictor_gives_the_rates_that_were_scored(desk: Path) -> None:
    """Images of the first fold through predictor.onnx: the same as its head gave on stored activations."""
    result = json.loads((desk / "run" / "result.json").read_text())
    rows = pq.read_table(desk / "run" / "predictions.parquet").to_pylist()
    scored = {row["stimulus_id"]: row[result["headline"]] for row in rows if row["fold"] == 0}
    recordings = nrp_onnx.open_recordings("simulated:120")
    paths = dict(zip(recordings.stimulus_ids, recordings.stimulus_paths, strict=True))
    predictor = nrp_onnx.load_predictor(desk / "run" / "predictor.onnx", device="cpu")
    rates = predictor.predict([paths[name] for name in scored])
    expected = np.array(list(scored.values()))
    assert expected.shape == (24, 256)
    # Not in deviations of the predicted rates: those of some sites hardly vary.
    deviation = np.nanstd([row["recorded"] for row in rows], axis=0)
    assert (np.abs(rates - expected) / deviation).max() < 1e-3


def test_weights_are_pruned(desk: Path) -> None:
    run = command("prune", "net.onnx", "--sparsity", 0.5, "-o", "pruned.onnx", cwd=desk)
    assert run.returncode == 0, run.stderr
    assert json.loads(command("layers", desk / "pruned.onnx", "--json").stdout)


def test_recordings_in_hdf5_are_imported(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    rates = np.random.default_rng(1).random((2, 3, 4))
    for name in "abc":
        Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "images" / f"{name}.png")
    with h5py.File(tmp_path / "rates.h5", "w") as file:
        file["rates"] = rates
    run = command(
        "recordings", "import", "images", "rates.h5", "--axes", "site,stimulus,repetition",
        "--region", "V4", "-o", "out", cwd=tmp_path,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    facts = json.loads(command("recordings", "describe", tmp_path / "out", "--json").stdout)
    assert facts["regions"] == {"V4": 2}
