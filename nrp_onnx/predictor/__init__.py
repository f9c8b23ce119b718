"""The neural response predictor: heads, their search and training, and the linear baselines."""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from nrp_onnx.predictor.baselines import BASELINES, Baselines, fit_baselines
    from nrp_onnx.predictor.directions import Basis, fit_basis
    from nrp_onnx.predictor.head import HeadConfig, NrpHead
    from nrp_onnx.predictor.image_products import LayerSpan, read_span
    from nrp_onnx.predictor.nrp_predictor import NrpPredictor, fit_heads
    from nrp_onnx.predictor.search_file import read_search
    from nrp_onnx.predictor.search_space import SearchSpace
    from nrp_onnx.predictor.training import train_heads
    from nrp_onnx.predictor.trials import TrialRecord

__all__ = [
    "BASELINES",
    "Baselines",
    "Basis",
    "HeadConfig",
    "LayerSpan",
    "NrpHead",
    "NrpPredictor",
    "SearchSpace",
    "TrialRecord",
    "fit_baselines",
    "fit_basis",
    "fit_heads",
    "read_search",
    "read_span",
    "train_heads",
]

__getattr__, __dir__, _ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "baselines": ["BASELINES", "Baselines", "fit_baselines"],
        "directions": ["Basis", "fit_basis"],
        "head": ["HeadConfig", "NrpHead"],
        "image_products": ["LayerSpan", "read_span"],
        "nrp_predictor": ["NrpPredictor", "fit_heads"],
        "search_file": ["read_search"],
        "search_space": ["SearchSpace"],
        "training": ["train_heads"],
        "trials": ["TrialRecord"],
    },
)
