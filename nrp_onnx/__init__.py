"""How brain-like is an image model? The NRP-error of ONNX backbones on neural recordings."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from nrp_onnx.errors import NrpOnnxError

if TYPE_CHECKING:
    from nrp_converters.convert import convert
    from nrp_onnx.api import ScoreOptions, score

__all__ = ["NrpOnnxError", "ScoreOptions", "convert", "score"]

# PyTorch and scikit-learn take seconds to import: only when they are used.
_HOMES = {
    "ScoreOptions": "nrp_onnx.api",
    "convert": "nrp_converters.convert",
    "score": "nrp_onnx.api",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
