"""The ONNX backbone: its layers, its preprocessing, and the feature graph cut from it."""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from nrp_onnx.backbone.choose_layers import select_layers
    from nrp_onnx.backbone.feature_graph import Feature, build_feature_graph
    from nrp_onnx.backbone.layers import Layer
    from nrp_onnx.backbone.model import Backbone, load_backbone
    from nrp_onnx.backbone.preprocessing import PRESETS, Preprocessing, read_preprocessing
    from nrp_onnx.backbone.pruning import prune_model
    from nrp_onnx.backbone.reductions import Reduction, choose_reductions

__all__ = [
    "PRESETS",
    "Backbone",
    "Feature",
    "Layer",
    "Preprocessing",
    "Reduction",
    "build_feature_graph",
    "choose_reductions",
    "load_backbone",
    "prune_model",
    "read_preprocessing",
    "select_layers",
]

__getattr__, __dir__, _ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "choose_layers": ["select_layers"],
        "feature_graph": ["Feature", "build_feature_graph"],
        "layers": ["Layer"],
        "model": ["Backbone", "load_backbone"],
        "preprocessing": ["PRESETS", "Preprocessing", "read_preprocessing"],
        "pruning": ["prune_model"],
        "reductions": ["Reduction", "choose_reductions"],
    },
)
