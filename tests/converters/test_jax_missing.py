"""Flax models where jax is not installed, as in the main environment."""

from importlib.util import find_spec

from tests.command_line import assert_user_error, nrp_onnx


def test_the_extra_is_named(tmp_path):
    assert find_spec("jax2onnx") is None, "this test is for an environment without the extra jax"
    factory = tmp_path / "models.py"
    factory.write_text("import flax\n")
    run = nrp_onnx("convert", f"jax:{factory}:net", "-o", tmp_path / "x.onnx")
    assert_user_error(run, "jax2onnx", "not installed", "pip install 'nrp-onnx[jax]'")
