"""Extracts the layers that a folder lacks: finds what is there, and has the rest computed."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nrp_onnx.activations.compute import Request, bad_stimuli, compute_layers, some
from nrp_onnx.activations.images import Stimuli
from nrp_onnx.activations.layer_file import STORE_VERSION, layer_path, stored_facts, stored_ids
from nrp_onnx.activations.layer_writer import forget_part
from nrp_onnx.activations.remote import RemoteFile, RemoteFolder
from nrp_onnx.activations.shards import compute_shards
from nrp_onnx.backbone.feature_graph import Feature
from nrp_onnx.backbone.fingerprints import computation_digests
from nrp_onnx.backbone.reduction_nodes import SEED
from nrp_onnx.errors import OutputError
from nrp_onnx.files import sha256_of_json


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

    paths: list[Path | RemoteFile]
    features: list[Feature]
    provider: str
    n_extracted: int
    skipped: list[str]


def extract_layers(
    request: Request,
    features: Sequence[Feature],
    stimuli: Stimuli,
    folder: Path,
    store: RemoteFolder | None = None,
) -> Extraction:
    """Write the files of the layers that are not there; the folder is this process's own.

    Args:
        store: where finished files go and are looked for; None: they stay in ``folder``.
    """
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
    finished: list[Path | RemoteFile] = [store / path.name if store else path for path in paths]
    todo, providers = [], set()
    for place, path in enumerate(paths):
        held = stored_facts(finished[place])
        if held is not None and held["fingerprint"] == facts[place]["fingerprint"]:
            providers.add(held["provider"])
            forget_part(path)
            continue
        if held is not None and not request.overwrite:
            raise OutputError(
                "the file holds other activations of a layer of this name",
                where=finished[place],
                expected=f"fingerprint {facts[place]['fingerprint'][:12]}",
                found=held["fingerprint"][:12],
                fix="Choose another folder with -o, or pass --overwrite.",
            )
        todo.append(place)
    if not todo:
        notes.say("the activations are there already: nothing is extracted")
    else:
        # What an earlier run computed and did not copy to the store is whole, too.
        waiting = {place: _fitting(paths[place], facts[place]) for place in todo if store}
        providers |= {provider for provider in waiting.values() if provider}
        new = [place for place in todo if not waiting.get(place)]
        if new:
            asked = [features[place] for place in new]
            ours = [(paths[place], facts[place]) for place in new]
            compute = compute_shards if request.engine.remote else compute_layers
            providers.add(compute(request, asked, ours, stimuli, folder))
        if store:
            for place in todo:
                (store / paths[place].name).upload(paths[place])
                paths[place].unlink()
    skipped = _lacking(finished, stimuli, request)
    return Extraction(finished, list(features), ",".join(sorted(providers)), len(todo), skipped)


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


def _fitting(path: Path, facts: dict[str, Any]) -> str | None:
    """The provider that computed a file with these facts; None if it is not there."""
    held = stored_facts(path)
    fits = held is not None and held["fingerprint"] == facts["fingerprint"]
    return str(held["provider"]) if held is not None and fits else None


def _lacking(paths: Sequence[Path | RemoteFile], stimuli: Stimuli, request: Request) -> list[str]:
    """Stimuli that a file lacks: only those whose images do not open are left out."""
    held = [stored_ids(path) for path in paths]
    skipped = [name for name in stimuli.stimulus_ids if any(name not in ids for ids in held)]
    if skipped and not request.skip_bad_stimuli:
        raise bad_stimuli(paths[0], skipped)
    if skipped:
        request.notes.say(
            f"--skip-bad-stimuli: {len(skipped)} images do not open and are left out: "
            f"{some(skipped)}"
        )
    return skipped
