"""Activations of stimuli: extracted with ONNX Runtime into Parquet, one file a layer."""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from nrp_onnx.activations.extract import Extraction, extract_activations
    from nrp_onnx.activations.images import ImageFolder, Stimuli
    from nrp_onnx.activations.layer_file import LayerActivations, LoadedLayer, StoredLayer
    from nrp_onnx.activations.session import open_session

__all__ = [
    "Extraction",
    "ImageFolder",
    "LayerActivations",
    "LoadedLayer",
    "Stimuli",
    "StoredLayer",
    "extract_activations",
    "open_session",
]

__getattr__, __dir__, _ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "extract": ["Extraction", "extract_activations"],
        "images": ["ImageFolder", "Stimuli"],
        "layer_file": ["LayerActivations", "LoadedLayer", "StoredLayer"],
        "session": ["open_session"],
    },
)
