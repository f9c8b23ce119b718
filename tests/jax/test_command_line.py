"""nrp-onnx convert jax:FILE:FACTORY, as a user runs it."""

from pathlib import Path

import pytest

from nrp_onnx.activations.session import wheels_clash
from nrp_onnx.backbone.model import load_backbone
from tests.command_line import assert_user_error, nrp_onnx

MODELS = """
import jax
import jax.numpy as jnp
from flax import linen, nnx

ones = nnx.initializers.ones


class Net(nnx.Module):
    def __init__(self):
        self.conv = nnx.Conv(3, 4, (3, 3), strides=2, kernel_init=ones, rngs=nnx.Rngs(0))
        self.head = nnx.Linear(4, 2, kernel_init=ones, rngs=nnx.Rngs(0))

    def __call__(self, x):
        return self.head(nnx.relu(self.conv(x)).mean(axis=(1, 2)))


class Small(linen.Module):
    @linen.compact
    def __call__(self, x):
        return linen.Dense(2, kernel_init=ones)(x.mean(axis=(1, 2)))


def net():
    return Net()


def small():
    return Small().bind(Small().init(jax.random.key(0), jnp.zeros((1, 8, 8, 3))))


def unbound():
    return Small()


def breaks():
    raise RuntimeError("no weights here\\nand more")


def number():
    return 3


class Spectrum(Net):
    def __call__(self, x):
        return jnp.abs(jnp.fft.fft2(self.conv(x), axes=(1, 2)))


def spectrum():
    return Spectrum()
"""


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "flax_models.py"
    path.write_text(MODELS)
    return path


def test_a_factory_in_a_file_converts_and_its_layers_are_listed(models, tmp_path):
    out = tmp_path / "net.onnx"
    made = nrp_onnx("convert", f"jax:{models}:net", "-o", out, "--input-size", "24x32")
    assert made.returncode == 0, made.stderr
    assert "parity with the source: 2 layers, largest relative error" in made.stdout
    assert "imagenet" in made.stderr
    assert ("overwrite each other" in made.stderr) is wheels_clash()
    assert not [line for line in made.stderr.splitlines() if "arning" in line], made.stderr
    backbone = load_backbone(out)
    assert [layer.name for layer in backbone.layers] == ["conv", "head"]
    assert (backbone.input.height, backbone.input.width, backbone.input.layout) == (24, 32, "NHWC")
    assert backbone.source is not None
    assert backbone.source["spec"] == f"jax:{models}:net"
    listed = nrp_onnx("layers", out)
    assert listed.returncode == 0, listed.stderr
    rows = [line for line in listed.stdout.splitlines() if "conv" in line]
    assert len(rows) == 1
    assert "NHWC" in rows[0]


def test_a_linen_factory_in_a_module_converts(models, tmp_path):
    out = tmp_path / "small.onnx"
    spec = "jax:flax_models:small"
    made = nrp_onnx("convert", spec, "-o", out, "--input-size", "8", cwd=models.parent)
    assert made.returncode == 0, made.stderr
    assert [layer.name for layer in load_backbone(out).layers] == ["Dense_0"]


@pytest.mark.parametrize(
    ("factory", "options", "says"),
    [
        ("breaks", [], ["the factory does not return a model", "RuntimeError: no weights here"]),
        ("number", [], ["the factory returns no flax model", "found int"]),
        ("unbound", [], ["a Small without variables", "module.bind(variables)"]),
        ("absent", [], ["has no function absent"]),
        ("net", ["--weights", "none"], ["the weights are those that the factory gives"]),
        ("spectrum", [], ["cannot be expressed in ONNX", "FFT"]),
    ],
)
def test_bad_factories_are_said_in_one_line(models, tmp_path, factory, options, says):
    out = tmp_path / "x.onnx"
    run = nrp_onnx("convert", f"jax:{models}:{factory}", "-o", out, *options)
    assert_user_error(run, *says)
    assert not out.exists()
