"""A user's own file makes a model and changes nothing else in the process."""

import json
import sys
from pathlib import Path

import onnx
import pytest
from torch import nn

from nrp_converters.factory import make_model
from tests.command_line import nrp_onnx

NETWORK = """
from torch import nn

class Net(nn.Sequential):
    pass

def make():
    return Net(nn.Conv2d(3, 4, 3), nn.ReLU())
"""


@pytest.fixture(autouse=True)
def path_before(monkeypatch):
    """The path of modules, restored in case a test fails."""
    before = list(sys.path)
    monkeypatch.setattr(sys, "path", list(before))
    return before


def made(path: Path) -> nn.Module:
    network = make_model(f"{path}:make", "torch")
    assert isinstance(network, nn.Module)
    return network


def test_a_file_named_as_a_module_of_python_leaves_that_module(tmp_path):
    (tmp_path / "json.py").write_text(NETWORK)
    python_s_own = sys.modules["json"]
    run = nrp_onnx("convert", "torch:json.py:make", "-o", "x.onnx", "--preprocess", "raw",
                   "--input-size", "8x8", cwd=tmp_path)  # fmt: skip
    assert run.returncode == 0, run.stderr
    assert sys.modules["json"] is python_s_own
    properties = {p.key: p.value for p in onnx.load(tmp_path / "x.onnx").metadata_props}
    assert json.loads(properties["nrp_onnx.source"])["class"] == "json.Net"


def test_modules_beside_the_file_can_be_imported_while_it_runs(tmp_path, path_before):
    """At the top of the file, and in the function; afterwards the path is what it was."""
    (tmp_path / "blocks.py").write_text("channels = 5\n")
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "heads.py").write_text("bias = False\n")
    (tmp_path / "net.py").write_text(
        "from torch import nn\nimport blocks\n\n"
        "def make():\n    from parts import heads\n"
        "    return nn.Conv2d(3, blocks.channels, 3, bias=heads.bias)\n"
    )
    network = made(tmp_path / "net.py")
    assert network.out_channels == 5
    assert network.bias is None
    assert sys.path == path_before


def test_the_path_is_restored_after_an_error(tmp_path, path_before, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "broken_net.py").write_text("raise ValueError('broken')\n")
    for reference in ("broken_net:make", "broken_net.py:make"):
        with pytest.raises(Exception, match="ValueError: broken"):
            make_model(reference, "torch")
        assert sys.path == path_before


def test_two_folders_may_have_modules_of_one_name(tmp_path):
    for channels in (2, 7):
        folder = tmp_path / str(channels)
        folder.mkdir()
        (folder / "sizes_of_net.py").write_text(f"channels = {channels}\n")
        (folder / "net.py").write_text(
            "from torch import nn\nimport sizes_of_net\n\n"
            "def make():\n    return nn.Conv2d(3, sizes_of_net.channels, 3)\n"
        )
        assert made(folder / "net.py").out_channels == channels


def test_a_file_beside_it_does_not_stand_in_for_the_standard_library(tmp_path, monkeypatch):
    """Packages that are imported later would get it, too."""
    monkeypatch.delitem(sys.modules, "colorsys", raising=False)
    (tmp_path / "colorsys.py").write_text("raise ValueError('not this one')\n")
    (tmp_path / "net.py").write_text("import colorsys\n" + NETWORK)
    made(tmp_path / "net.py")
    assert Path(sys.modules["colorsys"].__file__ or "").parent != tmp_path
