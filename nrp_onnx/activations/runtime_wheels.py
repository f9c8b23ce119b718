"""ONNX Runtime's two wheels: installed side by side, each overwrites the files of the other."""

from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version

#: What to say where `wheels_clash`.
CLASH = (
    "onnxruntime and onnxruntime-gpu are both installed here and overwrite each other, so that CUDA may "
    "not be found: convert flax models in an environment of their own, and for CUDA run pip uninstall "
    "-y onnxruntime onnxruntime-gpu, then pip install onnxruntime-gpu"
)


def wheels_clash(version_of: Callable[[str], str] = version) -> bool:
    """Whether both wheels are installed in this environment.

    Args:
        version_of: gives the version of an installed distribution, as `importlib.metadata.version`.
    """
    try:
        return bool(version_of("onnxruntime") and version_of("onnxruntime-gpu"))
    except PackageNotFoundError:
        return False
