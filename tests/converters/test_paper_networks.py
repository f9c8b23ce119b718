"""The paper's eight networks: their table, the page about them, and the command that makes them."""

import re
from pathlib import Path

import onnx
import pytest

from nrp_converters import paper
from nrp_converters.paper import PAPER_NETWORKS, PaperNetwork, convert_paper_networks, is_made
from nrp_converters.request import Request
from nrp_onnx.backbone.layers import PARITY_KEY
from nrp_onnx.backbone.preprocessing import PRESETS
from nrp_onnx.errors import ModelError
from tests.command_line import assert_one_line_error, convert_command

#: Table 1 of the paper: parameters, top-5, top-1, NRP-error.
TABLE = """
MobileNet     4,253,864   0.895 0.704 0.237
MobileNetV2   3,638,984   0.901 0.713 0.249
NASNetMobile  5,326,716   0.919 0.744 0.247
ResNet50      25,636,712  0.921 0.749 0.290
Xception      22,910,480  0.945 0.790 0.257
DenseNet121   8,062,504   0.923 0.750 0.249
DenseNet169   14,307,880  0.932 0.762 0.249
AlexNet       60,954,656  0.803 0.570 0.226
"""
PAGE = Path(__file__).parents[2] / "models" / "README.md"


def test_data_are_those_of_the_paper():
    rows = [line.split() for line in TABLE.split("\n") if line]
    assert [network.name for network in PAPER_NETWORKS] == [row[0] for row in rows]
    for network, row in zip(PAPER_NETWORKS, rows, strict=True):
        printed = network.n_parameters_in_paper or network.n_parameters
        assert f"{printed:,}" == row[1]
        assert [network.top5, network.top1, network.nrp_error] == [float(x) for x in row[2:]]
        assert network.preprocessing in PRESETS
    counts = {network.name: network.n_parameters for network in PAPER_NETWORKS}
    assert (counts["MobileNetV2"], counts["AlexNet"]) == (3_538_984, 60_965_224)


def test_the_page_about_the_models_says_what_the_data_say():
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    rows: dict[str, list[str]] = {}
    for line in lines:
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("|") and cells[0] in {network.name for network in PAPER_NETWORKS}:
            rows.setdefault(cells[0], []).extend(cells[1:])
    for network in PAPER_NETWORKS:
        cells = rows[network.name]
        height, width = network.input_size
        for expected in (
            f"`nrp-onnx convert {network.spec} -o {network.name}.onnx`",
            f"{network.n_parameters:,}",
            f"{network.top5:.3f}",
            f"{network.top1:.3f}",
            f"{network.nrp_error:.3f}",
            f"{height} x {width}",
            f"`{network.preprocessing}`",
            network.licence,
        ):
            assert any(expected in cell for cell in cells), (network.name, expected)
        if network.n_parameters_in_paper is not None:
            assert f"{network.n_parameters_in_paper:,}" in PAGE.read_text(encoding="utf-8")
    presets = re.findall(r"`(\w+)`: ", PAGE.read_text(encoding="utf-8"))
    assert {network.preprocessing for network in PAPER_NETWORKS} <= set(presets)


FACTORY = """
from torch import nn

def good():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())

def broken():
    raise ValueError("no such thing\\nand more")
"""


def network(name: str, spec: str, n_parameters: int = 112) -> PaperNetwork:
    return PaperNetwork(name, spec, n_parameters, 0.9, 0.7, 0.2, (8, 8), "raw", "none")


@pytest.fixture
def small_networks(tmp_path: Path, monkeypatch) -> Path:
    """Three stand-ins for the eight, of which the second fails; the folder to make them in."""
    file = tmp_path / "makes.py"
    file.write_text(FACTORY)
    three = (
        network("First", f"torch:{file}:good"),
        network("Second", f"torch:{file}:broken"),
        network("Third", f"torch:{file}:good"),
    )
    monkeypatch.setattr(
        paper.convert_paper_networks, "__kwdefaults__",
        {**(convert_paper_networks.__kwdefaults__ or {}), "networks": three},
    )  # fmt: skip
    return tmp_path / "models"


@pytest.mark.slow
def test_one_that_fails_does_not_lose_the_others(small_networks):
    arguments = ("--all-paper", "-o", small_networks, "--input-size", "8x8")
    first = convert_command(*arguments)
    assert_one_line_error(
        first, "1 of 3 networks were not converted: Second", "ValueError: no such thing"
    )
    assert sorted(file.name for file in small_networks.iterdir()) == ["First.onnx", "Third.onnx"]
    for file in small_networks.iterdir():
        onnx.checker.check_model(str(file), full_check=True)
    assert first.stdout.count("parity with the source") == 2
    before = {file.name: file.stat().st_mtime_ns for file in small_networks.iterdir()}
    # What is damaged is made again, what is whole is left and said.
    (small_networks / "Third.onnx").write_bytes(
        (small_networks / "Third.onnx").read_bytes()[:-2000]
    )
    second = convert_command(*arguments)
    assert second.returncode == 2
    assert f"{small_networks / 'First.onnx'}: already there and whole" in second.stdout
    assert "Third.onnx: made in" in second.stdout
    assert (small_networks / "First.onnx").stat().st_mtime_ns == before["First.onnx"]
    onnx.checker.check_model(str(small_networks / "Third.onnx"), full_check=True)


def test_a_network_with_another_number_of_parameters_is_not_the_papers(small_networks, tmp_path):
    wrong = (network("First", f"torch:{tmp_path / 'makes.py'}:good", 113),)
    with pytest.raises(ModelError, match="expected 113 parameters; found 112"):
        convert_paper_networks(
            small_networks, Request(input_size=(8, 8)), networks=wrong, say=lambda _: None
        )
    assert not small_networks.exists()


def test_weights_and_seed_are_passed_on_and_tell_whether_a_file_is_the_right_one(
    tmp_path, monkeypatch
):
    asked = []

    def convert_spec(spec, request):
        asked.append((spec, request.weights, request.seed))
        raise ModelError("not today", where=spec)

    monkeypatch.setattr(paper, "convert_spec", convert_spec)
    run = convert_command("--all-paper", "-o", tmp_path, "--weights", "none", "--seed", 4)
    assert asked == [(network.spec, "none", 4) for network in PAPER_NETWORKS]
    assert_one_line_error(run, "8 of 8 networks were not converted: MobileNet, MobileNetV2, NAS")


def test_only_a_checked_file_with_the_same_weights_is_made(tmp_path):
    path = tmp_path / "x.onnx"
    for source, parity, request, expected in (
        ('{"weights": "none", "seed": 1}', True, Request(weights="none", seed=1), True),
        ('{"weights": "none", "seed": 1}', True, Request(weights="none", seed=2), False),
        ('{"weights": "none", "seed": 1}', True, Request(), False),
        ('{"weights": "imagenet"}', True, Request(), True),
        ('{"weights": "imagenet"}', True, Request(weights="none"), False),
        ('{"weights": "imagenet"}', False, Request(), False),
        ("no JSON", True, Request(), False),
    ):
        model = onnx.ModelProto(ir_version=8)
        metadata = {"nrp_onnx.source": source} | ({PARITY_KEY: "{}"} if parity else {})
        onnx.helper.set_model_props(model, metadata)
        onnx.save(model, path)
        assert is_made(path, request) is expected, (source, request)
    path.unlink()
    assert not is_made(path, Request())


def test_either_a_spec_or_all(tmp_path):
    for arguments, found in ((("torch:a:b", "--all-paper"), "both"), ((), "neither")):
        run = convert_command(*arguments, "-o", tmp_path / "x")
        assert_one_line_error(run, "either a SPEC or --all-paper", f"found {found}")
