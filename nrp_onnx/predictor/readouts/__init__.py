"""Readouts: how NRP-L1 sees the activations of a layer."""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from nrp_onnx.predictor.readouts.dense import DenseHeads, HeadShape

__all__ = ["DenseHeads", "HeadShape"]

__getattr__, __dir__, _ = lazy_loader.attach(
    __name__,
    submod_attrs={"dense": ["DenseHeads", "HeadShape"]},
)
