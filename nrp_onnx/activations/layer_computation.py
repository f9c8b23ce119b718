"""Computes layers of stimuli in this process: opens the session, resumes, writes the files."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nrp_onnx.activations.batches import Batches
from nrp_onnx.activations.images import n_cores
from nrp_onnx.activations.layer_parts import LayerParts
from nrp_onnx.activations.session import BoundSession, open_session
from nrp_onnx.activations.space import check_space
from nrp_onnx.activations.stimuli import Stimuli
from nrp_onnx.activations.stream import stream_activations
from nrp_onnx.backbone.feature_graph import IMAGES, Feature, build_feature_graph, to_checked_proto
from nrp_onnx.backbone.model import Backbone
from nrp_onnx.backbone.preprocessing import Preprocessing
from nrp_onnx.engine import Engine, LocalEngine
from nrp_onnx.errors import RecordingsError
from nrp_onnx.notes import Notes

#: The batch sizes to begin with. On the CPU, the activations of few images stay in its caches.
_BATCH, _BATCH_ON_GPU = 4, 64
#: Batches that run at a time on the CPU, one on each core: none waits for the slowest share of a core.
_MOST_LANES = 16


@dataclass(frozen=True)
class Request:
    """What to extract, and how; see `nrp_onnx.activations.extraction.extract_activations`."""

    backbone: Backbone
    preprocessing: Preprocessing
    device: str
    notes: Notes
    skip_bad_stimuli: bool
    overwrite: bool
    engine: Engine = field(default_factory=LocalEngine)


def compute_layers(
    request: Request,
    features: Sequence[Feature],
    files: Sequence[tuple[Path, dict[str, Any]]],
    stimuli: Stimuli,
    folder: Path,
) -> str:
    """Compute layers and write their files; the provider that computed them.

    Args:
        files: where the file of each layer goes, and what it says of itself.
        folder: that holds them.
    """
    backbone, notes = request.backbone, request.notes
    lanes = min(n_cores(), _MOST_LANES)
    # Nothing refers to the graph once the session has its own copy: it may be large.
    session = open_session(
        to_checked_proto(
            build_feature_graph(backbone, request.preprocessing, features), "feature graph"
        ).SerializeToString(),
        request.device, notes, backbone.path, backbone.path.parent, n_cores() // lanes,
    )  # fmt: skip
    provider: str = session.get_providers()[0]
    on_cpu = provider == "CPUExecutionProvider"
    reference = backbone.input.batch or (_BATCH if on_cpu else _BATCH_ON_GPU)
    names = [feature.layer.name for feature in features]
    parts = LayerParts(
        [path for path, _ in files],
        [feature.n_features for feature in features],
        [{**facts, "provider": provider} for _, facts in files],
        reference,
    )
    with parts:
        ids, done = stimuli.stimulus_ids, parts.stimulus_ids
        start = ids.index(done[-1]) + 1 if done else 0
        if done:
            notes.log(f"going on after {start:,} of {len(ids):,} images: an earlier run left them")
        if start != len(done) and not request.skip_bad_stimuli:
            held = set(done)
            raise bad_stimuli(folder, [name for name in ids[:start] if name not in held])
        check_space(folder, features, len(ids), len(done), notes)
        batches = Batches(
            BoundSession(session, IMAGES, names).run,
            reference,
            backbone.input.batch is not None,
            backbone.path,
            notes,
            lanes if on_cpu else 1,
        )
        stream_activations(
            batches, parts, names, stimuli, start, request.skip_bad_stimuli, backbone.path, notes
        )
    return provider


def bad_stimuli(folder: object, names: Sequence[str]) -> RecordingsError:
    """The error for stimuli that an earlier run left out, and this one is not to."""
    return RecordingsError(
        f"the images of {len(names)} stimuli did not open in an earlier run",
        where=folder,
        found=some(names),
        fix="Mend them, or pass --skip-bad-stimuli.",
    )


def some(names: Sequence[str]) -> str:
    """The first few names."""
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
