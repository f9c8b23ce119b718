"""nrp_onnx.convert and nrp_onnx.score on objects of a framework."""

import json
from pathlib import Path

import onnx
import pytest
import torch
from torch import nn

import nrp_onnx
from nrp_onnx.api import score_with
from nrp_onnx.errors import ModelError
from tests.command_line import assert_user_error
from tests.command_line import nrp_onnx as command

#: Together they take over ten seconds of a core.
pytestmark = pytest.mark.slow


@pytest.fixture
def pooled_network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 7, stride=4), nn.ReLU(), nn.AdaptiveAvgPool2d(3), nn.Flatten()
    )


def test_a_module_is_converted_checked_and_saved(pooled_network: nn.Module, tmp_path: Path) -> None:
    model = nrp_onnx.convert(pooled_network, torch.zeros(1, 3, 32, 48), preprocessing="tf")
    model.save(tmp_path / "model.onnx")
    metadata = {p.key: p.value for p in onnx.load(tmp_path / "model.onnx").metadata_props}
    assert json.loads(metadata["nrp_onnx.parity"])["max_relative_error"] < 1e-5
    assert json.loads(metadata["nrp_onnx.preprocessing"])["size"] == {"height": 32, "width": 48}


def test_what_is_no_model_is_refused() -> None:
    with pytest.raises(ModelError, match=r"expected a torch\.nn\.Module.*found builtins\.dict"):
        nrp_onnx.convert({"weights": 1})
    with pytest.raises(ModelError, match="this is no model; expected the path of an ONNX file"):
        nrp_onnx.score({"weights": 1})


@pytest.mark.slow
def test_a_module_is_scored_as_its_file_is(
    pooled_network: nn.Module, recordings_folder: Path, tmp_path: Path
) -> None:
    options = nrp_onnx.ScoreOptions(search="quick", preprocess="raw")
    run = score_with(pooled_network, recordings_folder, tmp_path / "module", options)
    kept = tmp_path / "module" / "backbone.onnx"
    of_file = score_with(kept, recordings_folder, tmp_path / "file", options)
    assert run.regions == of_file.regions
    assert run.result.model.file == "Sequential.onnx"
    assert run.result.model.preprocessing["rescale_factor"] == 1
    again = score_with(pooled_network, recordings_folder, tmp_path / "module", options)
    assert again.result.timings == run.result.timings, "the same module is the same run"


FACTORIES = """
from torch import nn

def make():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True))

def raises():
    raise RuntimeError("no weights here")

def number():
    return 3
"""


@pytest.mark.parametrize(
    ("spec", "parts"),
    [
        ("model.onnx", ["KIND:NAME", "torch", "onnx:FILE"]),
        ("caffe:x", ["KIND:NAME", "'caffe:x'"]),
        ("torch:models.py", ["torch:package.module:factory", "'torch:models.py'"]),
        ("torch:none.py:make", ["no such file", "none.py"]),
        ("torch:no.such.module:make", ["no.such.module cannot be imported", "ModuleNotFoundError"]),
        ("torch:models.py:other", ["models.py has no function other"]),
        ("torch:models.py:raises", ["does not return a model", "RuntimeError: no weights here"]),
        ("torch:models.py:number", ["expected an nn.Module", "found int"]),
    ],
)
def test_bad_specs_are_one_line(spec: str, parts: list[str], tmp_path: Path) -> None:
    (tmp_path / "models.py").write_text(FACTORIES)
    run = command("convert", spec, "-o", "out.onnx", cwd=tmp_path)
    assert_user_error(run, *parts)
    assert not (tmp_path / "out.onnx").exists()


def test_a_factory_is_converted_by_the_command(tmp_path: Path) -> None:
    (tmp_path / "models.py").write_text(FACTORIES)
    run = command(
        "convert", "torch:models.py:make", "-o", "out.onnx", "--input-size", "24x32",
        "--preprocess", "tf", cwd=tmp_path,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    assert "2 layers, largest relative error" in run.stdout
    listed = command("layers", tmp_path / "out.onnx", "--json")
    assert [row["shape"] for row in json.loads(listed.stdout)] == [[4, 22, 30]] * 2
    bad = command("convert", "torch:models.py:make", "-o", "x.onnx", "--input-size", "24,32",
                  cwd=tmp_path)  # fmt: skip
    assert_user_error(bad, "--input-size", "HEIGHTxWIDTH", "'24,32'")
