"""Extraction as independent tasks: each computes some stimuli, then each joins the shards of a layer.

A shard is an extraction of its own, of a range of the stimuli, into a folder of its own under the hidden
folder of the parts. It appears there when it is whole, so that a task can be run again while a lost
machine still writes. Shards that an interrupted run left are not computed again.
"""

import math
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from nrp_onnx.activations.compute import Request, compute_layers
from nrp_onnx.activations.images import Stimuli
from nrp_onnx.activations.layer_file import layer_path, read_components, stored_facts
from nrp_onnx.activations.layer_writer import ROWS, LayerFile, forget_part, join_layer
from nrp_onnx.activations.space import check_space
from nrp_onnx.backbone.feature_graph import Feature
from nrp_onnx.backbone.model import load_backbone
from nrp_onnx.backbone.preprocessing import Preprocessing
from nrp_onnx.files import sha256_of_json, whole_folder
from nrp_onnx.notes import Notes
from nrp_onnx.progress import progress_bar

#: Stimuli of a shard, at most: minutes of work, which is what a lost machine costs.
_STIMULI = 512
#: Shards that a small extraction is cut into, about.
_SHARDS = 16
#: First batches on all devices go into this many stimuli.
_A_BATCH = 64


@dataclass(frozen=True)
class _Plan:
    """What all shards have in common; features are without the components of ``pca:K``."""

    model: Path
    preprocessing: Preprocessing
    features: tuple[Feature, ...]
    facts: tuple[dict[str, Any], ...]
    device: str
    skip_bad_stimuli: bool
    folder: Path


@dataclass(frozen=True)
class _Shard:
    """A range of the stimuli, as `Stimuli`, and the folder of its files."""

    folder: Path
    stimulus_ids: tuple[str, ...]
    stimulus_paths: tuple[Path, ...]
    stimuli_fingerprint: str


def compute_shards(
    request: Request,
    features: Sequence[Feature],
    files: Sequence[tuple[Path, dict[str, Any]]],
    stimuli: Stimuli,
    folder: Path,
) -> str:
    """Compute layers as tasks of the engine; see `compute_layers`, which gives the same bytes."""
    engine, notes, folder = request.engine, request.notes, folder.resolve()
    device = request.device
    if device == "auto":
        device = "cuda" if engine.has_gpus else "cpu"
        notes.say(f"--device auto: running on {device}")
    facts = tuple(given for _, given in files)
    store = folder / ".part" / f"shards-{sha256_of_json([*facts, device])[:12]}"
    shards = _shards(stimuli, request.backbone.input.batch, store)
    store.mkdir(parents=True, exist_ok=True)
    plan = _Plan(
        request.backbone.path.resolve(),
        request.preprocessing,
        tuple(_without_components(feature) for feature in features),
        facts,
        device,
        request.skip_bad_stimuli,
        folder,
    )
    todo = [shard for shard in shards if not shard.folder.is_dir()]
    n_todo = sum(len(shard.stimulus_ids) for shard in todo)
    n_done = len(stimuli.stimulus_ids) - n_todo
    if n_done:
        notes.log(f"going on: an earlier run left {n_done:,} of {n_done + n_todo:,} images")
    check_space(folder, features, len(stimuli.stimulus_ids), n_done, notes)
    with progress_bar(
        f"Extracting {len(features)} layers", len(stimuli.stimulus_ids), n_done
    ) as advance:
        run = partial(_compute, plan)
        for shard, said in zip(todo, engine.map(run, todo, device != "cpu"), strict=True):
            for text in said:
                notes.say(text)
            advance(len(shard.stimulus_ids))
    held = [stored_facts(layer_path(shard.folder, facts[0]["layer"])) for shard in shards]
    provider = ",".join(sorted({found["provider"] for found in held if found}))
    joined = [
        LayerFile(
            path.resolve(),
            feature.n_features,
            {**given, "provider": provider},
            tuple(layer_path(shard.folder, given["layer"]) for shard in shards),
        )
        for feature, (path, given) in zip(features, files, strict=True)
    ]
    for _ in engine.map(join_layer, joined):
        pass
    shutil.rmtree(store)
    for path, _ in files:
        forget_part(path)
    return provider


def _shards(stimuli: Stimuli, batch: int | None, store: Path) -> list[_Shard]:
    """Ranges of whole batches and whole steps of the files; they hang on the stimuli alone.

    So an interrupted run finds its shards again, on however many machines.
    """
    ids, paths = stimuli.stimulus_ids, stimuli.stimulus_paths
    step = math.lcm(ROWS, _A_BATCH, batch or 1)
    size = step * math.ceil(min(_STIMULI, len(ids) / _SHARDS) / step)
    return [
        _Shard(
            store / f"{start:09d}",
            ids[start : start + size],
            tuple(path.resolve() for path in paths[start : start + size]),
            "",  # the facts of the files are those of all stimuli
        )
        for start in range(0, len(ids), size)
    ]


def _without_components(feature: Feature) -> Feature:
    """Components can be large: a task reads them from the folder."""
    return replace(feature, reduction=replace(feature.reduction, components=None))


def _compute(plan: _Plan, shard: _Shard) -> list[str]:
    """The task of a shard; what is to be said of it."""
    if shard.folder.is_dir():
        return []
    notes = Notes()
    features = [
        read_components(feature, plan.folder) if feature.reduction.kind == "pca" else feature
        for feature in plan.features
    ]
    request = Request(
        *(load_backbone(plan.model), plan.preprocessing, plan.device, notes),
        *(plan.skip_bad_stimuli, False),
    )
    try:
        with whole_folder(shard.folder) as part:
            files = [(layer_path(part, facts["layer"]), facts) for facts in plan.facts]
            compute_layers(request, features, files, shard, part)
    except OSError:
        if not shard.folder.is_dir():  # else the task ran twice, and the other was first
            raise
    return notes.said
