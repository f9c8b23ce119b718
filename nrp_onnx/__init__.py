"""How brain-like is an image model? The NRP-error of ONNX backbones on neural recordings."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from nrp_onnx.errors import NrpOnnxError

if TYPE_CHECKING:
    from nrp_onnx.scoring.pipeline import ScoreOptions, score

__all__ = ["NrpOnnxError", "ScoreOptions", "score"]


def __getattr__(name: str) -> Any:
    # PyTorch and scikit-learn take seconds to import: only when they are used.
    if name in ("ScoreOptions", "score"):
        return getattr(import_module("nrp_onnx.scoring.pipeline"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
