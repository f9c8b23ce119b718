"""nrp-onnx convert with what cannot be converted: one line that says what to do, exit code 2."""

from pathlib import Path

import pytest

from tests.command_line import (
    assert_one_line_error,
    assert_user_error,
    convert_command,
    nrp_onnx_process,
)

FACTORIES = """
from torch import nn

from tests.converters.models import BrightnessGate, Eigenvalues, TwoInputs, WordsIn


def raises():
    raise ValueError("no such file\\nthe rest")


def number():
    return 3


def branches():
    return nn.Sequential(nn.Conv2d(3, 3, 1), BrightnessGate())


def eigenvalues():
    return nn.Sequential(nn.Conv2d(3, 3, 1), Eigenvalues())


def two_inputs():
    return TwoInputs()


def no_image():
    return WordsIn()


def four_channels():
    return nn.Sequential(nn.Conv2d(4, 3, 1), nn.ReLU())
"""


@pytest.fixture(scope="module")
def factories(tmp_path_factory) -> Path:
    path: Path = tmp_path_factory.mktemp("models") / "my_models.py"
    path.write_text(FACTORIES)
    return path


@pytest.mark.parametrize(
    ("factory", "parts"),
    [
        ("raises", ["the factory does not return a model", "ValueError: no such file"]),
        ("number", ["no PyTorch model", "an nn.Module", "found int"]),
        ("missing", ["has no function missing"]),
        ("branches", ["cannot trace", "submodule 1", "Keep forward free of branches on values"]),
        ("eigenvalues", ["cannot be expressed in ONNX", "eig", "Replace that operation"]),
        ("two_inputs", ["does not run on 2 images", "missing 1 required positional argument: 'y'"]),
        ("no_image", ["does not run on 2 images", "submodule words", "WordsIn"]),
        ("four_channels", ["does not run on 2 images", "submodule 0", "4 channels"]),
    ],
)
def test_models_that_cannot_be_converted(factories, tmp_path, factory, parts):
    out = tmp_path / "x.onnx"
    run = convert_command(
        f"torch:{factories}:{factory}", "-o", out, "--preprocess", "raw", "--input-size", "16x16"
    )
    assert_one_line_error(run, *parts)
    assert run.stdout == ""
    assert not out.exists()


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["vgg16"], ["names no model", "KIND:NAME", "torchvision", "zoo"]),
        (["caffe:vgg16"], ["names no model", "'caffe:vgg16'"]),
        (["torch:no_such_package.models:make"], ["no_such_package", "cannot be imported"]),
        (["torch:nowhere.py:make"], ["no such file", "nowhere.py"]),
        (["torch:nowhere"], ["names no factory", "package.module:factory"]),
        (["torch:os:getcwd", "--weights", "none"], ["brings its own weights", "'none'"]),
        (["torch:os:getcwd", "--input-size", "big"], ["no image size", "'big'"]),
    ],
)
def test_specs_and_options_that_make_no_sense(tmp_path, arguments, parts):
    assert_one_line_error(convert_command(*arguments, "-o", tmp_path / "x.onnx"), *parts)


@pytest.mark.slow
def test_a_user_sees_one_line_and_no_traceback(factories, tmp_path):
    run = nrp_onnx_process(
        "convert", f"torch:{factories}:eigenvalues", "-o", tmp_path / "x.onnx", "--preprocess", "raw",
        "--input-size", "16x16", cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert_user_error(run, "cannot be expressed in ONNX")
    assert run.stderr.count("\n") == 1
