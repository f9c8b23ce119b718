"""Extraction as tasks of a cluster: each computes some stimuli and leaves one range of each layer.

A task may run again while a lost machine still writes: its range is the same, and the file of a range
gets its name when it is whole.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from nrp_onnx.activations.compute import Computation, Request
from nrp_onnx.activations.images import Stimuli, StimulusRange
from nrp_onnx.activations.layer_file import read_components
from nrp_onnx.activations.layer_writer import LayerRanges, Range
from nrp_onnx.backbone.feature_graph import Feature
from nrp_onnx.backbone.model import load_backbone
from nrp_onnx.backbone.preprocessing import Preprocessing
from nrp_onnx.notes import Notes

#: Stimuli of a shard, at most: minutes of work, which is what a lost machine costs.
_STIMULI = 512
#: Shards that a small extraction is cut into, about.
_SHARDS = 16
#: Shards begin at multiples of this many stimuli: whole first batches on all devices.
_A_BATCH = 64


@dataclass(frozen=True)
class _Plan:
    """What all shards have in common; features are without the components of ``pca:K``."""

    model: Path
    preprocessing: Preprocessing
    features: tuple[Feature, ...]
    layers: tuple[LayerRanges, ...]
    device: str
    skip_bad_stimuli: bool
    folder: Path


def compute_shards(
    request: Request,
    features: Sequence[Feature],
    layers: Sequence[LayerRanges],
    stimuli: Stimuli,
    gaps: Sequence[Range],
    advance: Callable[[int], None],
) -> list[Range]:
    """Compute stimuli as tasks of the engine, and leave ranges of each layer.

    Args:
        gaps: places of the stimuli.
        advance: is told how many images were computed.

    Returns:
        The ranges, which are on disk.
    """
    plan = _Plan(
        request.backbone.path.resolve(),
        request.preprocessing,
        tuple(_without_components(feature) for feature in features),
        tuple(layers),
        request.device,
        request.skip_bad_stimuli,
        layers[0].path.parent,
    )
    ranges = _cut(gaps, len(stimuli.stimulus_ids), request.backbone.input.batch)
    shards = [_with_whole_paths(StimulusRange.of(stimuli, places)) for places in ranges]
    tasks = request.engine.map(partial(_compute, plan), shards, request.device != "cpu")
    for shard, said in zip(shards, tasks, strict=True):
        for text in said:
            request.notes.say(text)
        advance(len(shard.stimulus_ids))
    return ranges


def _cut(gaps: Sequence[Range], n_stimuli: int, batch: int | None) -> list[Range]:
    """Cut at places that hang on the stimuli alone, so that an interrupted run finds its shards."""
    step = math.lcm(_A_BATCH, batch or 1)
    size = step * math.ceil(min(_STIMULI, n_stimuli / _SHARDS) / step)
    return [
        (max(start, cut), min(end, cut + size))
        for start, end in gaps
        for cut in range(start - start % size, end, size)
    ]


def _with_whole_paths(shard: StimulusRange) -> StimulusRange:
    """Another process may have another working folder."""
    return replace(shard, stimulus_paths=tuple(path.resolve() for path in shard.stimulus_paths))


def _without_components(feature: Feature) -> Feature:
    """Components can be large: a task reads them from the folder."""
    return replace(feature, reduction=replace(feature.reduction, components=None))


def _compute(plan: _Plan, shard: StimulusRange) -> list[str]:
    """The task of a shard; what is to be said of it."""
    if all(layer.file(shard.places).is_file() for layer in plan.layers):
        return []  # the task ran before
    notes = Notes()
    features = [
        read_components(feature, plan.folder) if feature.reduction.kind == "pca" else feature
        for feature in plan.features
    ]
    request = Request(
        backbone=load_backbone(plan.model),
        preprocessing=plan.preprocessing,
        device=plan.device,
        notes=notes,
        skip_bad_stimuli=plan.skip_bad_stimuli,
        overwrite=False,
    )
    Computation(request, features).run(plan.layers, shard, math.inf, lambda _: None)
    return notes.said
