"""How brain-like is an image model? The NRP-error of ONNX backbones on neural recordings."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from nrp_onnx.errors import NrpOnnxError

if TYPE_CHECKING:
    from nrp_onnx.converters.conversion import convert
    from nrp_onnx.main_job import ScoreOptions, score

__all__ = ["NrpOnnxError", "ScoreOptions", "convert", "score"]

# PyTorch and scikit-learn take seconds to import: only when they are used.
_HOMES = {
    "ScoreOptions": "nrp_onnx.main_job",
    "convert": "nrp_onnx.converters.conversion",
    "score": "nrp_onnx.main_job",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
