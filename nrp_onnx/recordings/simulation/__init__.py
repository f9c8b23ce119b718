"""Simulated recordings whose truth is known: images, sites, responses."""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from nrp_onnx.recordings.simulation.simulate import simulate_recordings
    from nrp_onnx.recordings.simulation.stimuli import render

__all__ = ["render", "simulate_recordings"]

__getattr__, __dir__, _ = lazy_loader.attach(
    __name__,
    submod_attrs={"simulate": ["simulate_recordings"], "stimuli": ["render"]},
)
