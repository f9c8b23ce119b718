"""The packages of the extra ``jax``, which is kept apart from the others."""

from importlib.util import find_spec

from nrp_onnx.errors import ModelError

_PACKAGES = ("jax", "flax", "jax2onnx")


def check_installed(where: object) -> None:
    """Refuse to go on without the packages that flax models need.

    Raises:
        ModelError: if one is missing; names the extra.
    """
    missing = [name for name in _PACKAGES if find_spec(name) is None]
    if missing:
        raise ModelError(
            "flax models need packages that are not installed",
            where=where,
            expected=", ".join(_PACKAGES),
            found=f"no {', no '.join(missing)}",
            fix="In an environment of its own: pip install 'nrp-onnx[jax]' (jax2onnx brings the plain "
            "onnxruntime, which overwrites onnxruntime-gpu).",
        )
