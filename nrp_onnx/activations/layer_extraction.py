"""Extracts the layers that a folder lacks: finds what is there, opens the session, resumes."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nrp_onnx.activations.batches import Batches
from nrp_onnx.activations.images import n_cores
from nrp_onnx.activations.layer_part import forget_part
from nrp_onnx.activations.layer_parts import LayerParts
from nrp_onnx.activations.session import BoundSession, open_session
from nrp_onnx.activations.space import check_space
from nrp_onnx.activations.stimuli import Stimuli
from nrp_onnx.activations.store import STORE_VERSION, layer_path, stored_facts, stored_ids
from nrp_onnx.activations.stream import stream_activations
from nrp_onnx.backbone.computation import computation_digests
from nrp_onnx.backbone.count_sketch import SEED
from nrp_onnx.backbone.feature_graph import IMAGES, Feature, build_feature_graph, to_checked_proto
from nrp_onnx.backbone.model import Backbone
from nrp_onnx.backbone.preprocessing import Preprocessing
from nrp_onnx.errors import OutputError, RecordingsError
from nrp_onnx.files import sha256_of_json
from nrp_onnx.notes import Notes

#: The batch sizes to begin with. On the CPU, the activations of few images stay in its caches.
_BATCH, _BATCH_ON_GPU = 4, 64
#: Batches that run at a time on the CPU, one on each core: none waits for the slowest share of a core.
_MOST_LANES = 16


@dataclass(frozen=True)
class Extraction:
    """What an extraction left behind.

    Attributes:
        paths: the Parquet file of each feature.
        features: as they were asked for, with the principal components that were fitted.
        provider: ONNX Runtime's execution provider that computed them, now or when they were stored;
            several with commas where the layers were computed on several.
        n_extracted: how many layers were computed, the others being there already.
        skipped: ids of the stimuli that the files lack, because their images do not open.
    """

    paths: list[Path]
    features: list[Feature]
    provider: str
    n_extracted: int
    skipped: list[str]


@dataclass(frozen=True)
class Request:
    """What to extract, and how; see `nrp_onnx.activations.extraction.extract_activations`."""

    backbone: Backbone
    preprocessing: Preprocessing
    device: str
    notes: Notes
    skip_bad_stimuli: bool
    overwrite: bool


def extract_layers(
    request: Request, features: Sequence[Feature], stimuli: Stimuli, folder: Path
) -> Extraction:
    """Write the files of the layers that are not there; the folder is this process's own."""
    notes = request.notes
    paths = [layer_path(folder, feature.layer.name) for feature in features]
    computed = computation_digests(request.backbone, [feature.layer.tensor for feature in features])
    facts = [
        _facts(
            feature.fingerprint(computed[feature.layer.tensor], request.preprocessing),
            feature,
            stimuli,
        )
        for feature in features
    ]
    todo, providers = [], set()
    for place, path in enumerate(paths):
        held = stored_facts(path)
        if held is not None and held["fingerprint"] == facts[place]["fingerprint"]:
            providers.add(held["provider"])
            forget_part(path)
            continue
        if held is not None and not request.overwrite:
            raise OutputError(
                "the file holds other activations of a layer of this name",
                where=path,
                expected=f"fingerprint {facts[place]['fingerprint'][:12]}",
                found=held["fingerprint"][:12],
                fix="Choose another folder with -o, or pass --overwrite.",
            )
        todo.append(place)
    if not todo:
        notes.say("the activations are there already: nothing is extracted")
    else:
        asked = [features[place] for place in todo]
        ours = [(paths[place], facts[place]) for place in todo]
        providers.add(_extract(request, asked, ours, stimuli, folder))
    skipped = _lacking(paths, stimuli, request)
    return Extraction(paths, list(features), ",".join(sorted(providers)), len(todo), skipped)


def _extract(
    request: Request,
    features: Sequence[Feature],
    files: Sequence[tuple[Path, dict[str, Any]]],
    stimuli: Stimuli,
    folder: Path,
) -> str:
    """Compute layers and write their files; the provider that computed them."""
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
            raise _bad_stimuli(folder, [name for name in ids[:start] if name not in held])
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


def _facts(own: str, feature: Feature, stimuli: Stimuli) -> dict[str, Any]:
    facts = {
        "store_version": STORE_VERSION,
        "layer": feature.layer.name,
        "shape": list(feature.shape),
        "layout": feature.reduction.layout(feature.layer),
        "reduction": str(feature.reduction),
        "fingerprint": sha256_of_json([own, stimuli.stimuli_fingerprint]),
    }
    return {**facts, "seed": SEED} if feature.reduction.kind == "sketch" else facts


def _lacking(paths: Sequence[Path], stimuli: Stimuli, request: Request) -> list[str]:
    """Stimuli that a file lacks: only those whose images do not open are left out."""
    held = [stored_ids(path) for path in paths]
    skipped = [name for name in stimuli.stimulus_ids if any(name not in ids for ids in held)]
    if skipped and not request.skip_bad_stimuli:
        raise _bad_stimuli(paths[0].parent, skipped)
    if skipped:
        request.notes.say(
            f"--skip-bad-stimuli: {len(skipped)} images do not open and are left out: "
            f"{_some(skipped)}"
        )
    return skipped


def _bad_stimuli(folder: Path, names: Sequence[str]) -> RecordingsError:
    return RecordingsError(
        f"the images of {len(names)} stimuli did not open in an earlier run",
        where=folder,
        found=_some(names),
        fix="Mend them, or pass --skip-bad-stimuli.",
    )


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
