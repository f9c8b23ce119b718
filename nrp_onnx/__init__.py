"""How brain-like is an image model? The NRP-error of ONNX backbones on neural recordings.

Everything that a user needs is here; see ``dir(nrp_onnx)``. The names are loaded when they are first
used, since PyTorch and scikit-learn take seconds to import.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from nrp_onnx.errors import (
    DeviceError,
    EngineError,
    ModelError,
    NrpOnnxError,
    OptionError,
    OutputError,
    RecordingsError,
    RunError,
)

if TYPE_CHECKING:
    from nrp_converters.convert import convert
    from nrp_onnx.api import (
        Activations,
        Run,
        compare,
        extract,
        open_recordings,
        open_run,
        score,
    )
    from nrp_onnx.export.card import Card, read_card
    from nrp_onnx.export.predict import Predictor, load_predictor
    from nrp_onnx.export.scorer import ScorerResult, score_with
    from nrp_onnx.recordings.importers.arrays import import_arrays as import_recordings
    from nrp_onnx.recordings.recordings import Recordings
    from nrp_onnx.regressor import NrpRegressor
    from nrp_onnx.scoring.comparison import Comparison
    from nrp_onnx.scoring.options import ExtractOptions, ScoreOptions

__all__ = [
    "Activations",
    "Card",
    "Comparison",
    "DeviceError",
    "EngineError",
    "ExtractOptions",
    "ModelError",
    "NrpOnnxError",
    "NrpRegressor",
    "OptionError",
    "OutputError",
    "Predictor",
    "Recordings",
    "RecordingsError",
    "Run",
    "RunError",
    "ScoreOptions",
    "ScorerResult",
    "__version__",
    "compare",
    "convert",
    "extract",
    "import_recordings",
    "load_predictor",
    "open_recordings",
    "open_run",
    "read_card",
    "score",
    "score_with",
]

_API = "nrp_onnx.api"
#: Where each name lives: its module, and its name there.
_HOMES = {
    "Activations": (_API, "Activations"),
    "Card": ("nrp_onnx.export.card", "Card"),
    "Comparison": ("nrp_onnx.scoring.comparison", "Comparison"),
    "ExtractOptions": ("nrp_onnx.scoring.options", "ExtractOptions"),
    "NrpRegressor": ("nrp_onnx.regressor", "NrpRegressor"),
    "Predictor": ("nrp_onnx.export.predict", "Predictor"),
    "Recordings": ("nrp_onnx.recordings.recordings", "Recordings"),
    "Run": (_API, "Run"),
    "ScoreOptions": ("nrp_onnx.scoring.options", "ScoreOptions"),
    "ScorerResult": ("nrp_onnx.export.scorer", "ScorerResult"),
    "compare": (_API, "compare"),
    "convert": ("nrp_converters.convert", "convert"),
    "extract": (_API, "extract"),
    "import_recordings": ("nrp_onnx.recordings.importers.arrays", "import_arrays"),
    "load_predictor": ("nrp_onnx.export.predict", "load_predictor"),
    "open_recordings": (_API, "open_recordings"),
    "open_run": (_API, "open_run"),
    "read_card": ("nrp_onnx.export.card", "read_card"),
    "score": (_API, "score"),
    "score_with": ("nrp_onnx.export.scorer", "score_with"),
}


def __getattr__(name: str) -> object:
    if name == "__version__":
        from importlib.metadata import version

        return version("nrp-onnx")
    if name in _HOMES:
        module, attribute = _HOMES[name]
        return getattr(import_module(module), attribute)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
