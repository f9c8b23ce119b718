"""Metrics of other tools, computed from the same activations."""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from nrp_onnx.scoring.metrics.brainscore import brainscore_of_regions, choose_splits

__all__ = ["brainscore_of_regions", "choose_splits"]

__getattr__, __dir__, _ = lazy_loader.attach(
    __name__,
    submod_attrs={"brainscore": ["brainscore_of_regions", "choose_splits"]},
)
