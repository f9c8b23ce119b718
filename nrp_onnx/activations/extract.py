"""Extracts activations of stimuli into a folder that one process at a time writes to.

What is there already is found by its fingerprint; the rest is computed here or on a cluster.
"""

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from nrp_onnx.activations.components import fitted
from nrp_onnx.activations.compute import Computation, Request, duration
from nrp_onnx.activations.images import Stimuli, StimulusRange
from nrp_onnx.activations.layer_file import (
    STORE_VERSION,
    StoredLayer,
    components_path,
    fitting_facts,
    layer_path,
    stored_facts,
    stored_ids,
)
from nrp_onnx.activations.layer_writer import (
    RANGE_SECONDS,
    LayerRanges,
    finished_ranges,
    gaps,
    join_ranges,
    remove_ranges,
)
from nrp_onnx.activations.remote import RemoteFile, RemoteFolder
from nrp_onnx.activations.session import PROVIDERS, chosen_device
from nrp_onnx.activations.shards import compute_shards
from nrp_onnx.activations.space import check_space, writing_to
from nrp_onnx.backbone.feature_graph import Feature
from nrp_onnx.backbone.fingerprints import computation_digests
from nrp_onnx.backbone.model import Backbone
from nrp_onnx.backbone.preprocessing import Preprocessing
from nrp_onnx.backbone.reduction_nodes import SEED
from nrp_onnx.decoding import RULES
from nrp_onnx.engine import Engine, LocalEngine
from nrp_onnx.errors import RecordingsError
from nrp_onnx.files import locked_folder, sha256_of_json
from nrp_onnx.notes import Notes
from nrp_onnx.progress import progress_bar
from nrp_onnx.recordings.registry import cache_folder

#: Layers whose ranges are joined at the same time in this process.
_JOINS = 2


_IN_USE = "another process is extracting into this folder"


@dataclass(frozen=True)
class Extraction:
    """What an extraction left behind.

    Attributes:
        paths: the Parquet file of each feature.
        fingerprints: of all that the activations in each file depend on.
        features: as they were asked for, with the principal components that were fitted.
        provider: ONNX Runtime's execution provider that computed them, now or when they were stored;
            several with commas where the layers were computed on several.
        n_extracted: how many layers were computed, the others being there already.
        skipped: ids of the stimuli that the files lack, because their images do not open.
    """

    paths: list[Path | RemoteFile]
    fingerprints: list[str]
    features: list[Feature]
    provider: str
    n_extracted: int
    skipped: list[str]

    def layers(self, stimulus_ids: tuple[str, ...]) -> list[StoredLayer]:
        """The activations of each feature, of these stimuli.

        Raises:
            OutputError: if a file does not hold them any more.
        """
        files = zip(self.paths, self.fingerprints, strict=True)
        return [StoredLayer(path, stimulus_ids, fingerprint) for path, fingerprint in files]


def extract_activations(
    backbone: Backbone,
    preprocessing: Preprocessing,
    features: Sequence[Feature],
    stimuli: Stimuli,
    folder: Path | RemoteFolder,
    device: str,
    notes: Notes,
    *,
    skip_bad_stimuli: bool = False,
    overwrite: bool = False,
    engine: Engine | None = None,
) -> Extraction:
    """Write the activations of all stimuli, one Parquet file a layer, unless they are there.

    A file is there if its fingerprint fits: of all that the layer is computed from in the model, the
    preprocessing, the reduction and the stimuli. So a model that differs later on finds it, too. A
    run that was killed goes on where it stopped.

    Args:
        folder: a local one, or one on another file system: then a folder of the cache holds what is on
            its way, and finished files are copied.
        skip_bad_stimuli: leave out images that do not open, instead of failing.
        overwrite: take the place of activations of another fingerprint.
        engine: where it is computed; None: in this process. Machines of a cluster read the model and
            the images at the same paths as this one, and write to ``folder``. The files are the same.

    Raises:
        ModelError, DeviceError, RecordingsError: if the model, the device or an image cannot be
            used.
        OutputError: if the folder is in use, holds something else, or cannot hold the activations.
    """
    request = Request(
        backbone=backbone,
        preprocessing=preprocessing,
        device=device,
        notes=notes,
        skip_bad_stimuli=skip_bad_stimuli,
        overwrite=overwrite,
        engine=engine or LocalEngine(),
    )
    store = folder if isinstance(folder, RemoteFolder) else None
    local = _parts_of(store) if store else folder
    assert isinstance(local, Path)
    with writing_to(folder), locked_folder(local, _IN_USE):
        if store:
            store.make()
            _fetch_components(features, store, local)
        features = with_components(request, features, stimuli, local)
        if store:
            _keep_components(features, store, local)
        return extract_layers(request, features, stimuli, local, store)


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
    digests = computation_digests(request.backbone, [feature.layer.tensor for feature in features])
    facts = [
        _facts(
            feature.fingerprint(digests[feature.layer.tensor], request.preprocessing),
            feature,
            stimuli,
        )
        for feature in features
    ]
    fingerprints = [given["fingerprint"] for given in facts]
    finished: list[Path | RemoteFile] = [store / path.name if store else path for path in paths]
    todo, providers = [], set()
    for place, path in enumerate(paths):
        held = fitting_facts(finished[place], fingerprints[place], request.overwrite)
        if held is not None:
            providers.add(held["provider"])
            remove_ranges(path)
            continue
        todo.append(place)
    if not todo:
        notes.say("the activations are there already: nothing is extracted")
    else:
        # What an earlier run computed and did not copy to the store is whole, too.
        computed_before = {
            place: held["provider"]
            for place in todo
            if store and (held := fitting_facts(paths[place], fingerprints[place], overwrite=True))
        }
        providers |= set(computed_before.values())
        new = [place for place in todo if place not in computed_before]
        if new:
            files = [(features[place], paths[place], facts[place]) for place in new]
            providers.add(_compute(request, files, stimuli))
        if store:
            for place in todo:
                (store / paths[place].name).upload(paths[place])
                paths[place].unlink()
    return Extraction(
        paths=finished,
        fingerprints=fingerprints,
        features=list(features),
        provider=",".join(sorted(providers)),
        n_extracted=len(todo),
        skipped=_lacking(finished, stimuli, request),
    )


def with_components(
    request: Request, features: Sequence[Feature], stimuli: Stimuli, folder: Path
) -> list[Feature]:
    """The features, those of ``pca:K`` with their components: fitted now, or read from ``folder``.

    Raises:
        OptionError: if there are too few images, or a layer is too large.
        OutputError: if the folder holds other components, which may not be overwritten.
    """
    return [
        fitted(request, feature, stimuli, folder, _extract_sample)
        if feature.reduction.kind == "pca"
        else feature
        for feature in features
    ]


def _extract_sample(
    request: Request, feature: Feature, stimuli: Stimuli, folder: Path
) -> StoredLayer:
    """A layer of some stimuli, without those whose images do not open."""
    extraction = extract_layers(replace(request, overwrite=True), [feature], stimuli, folder)
    skipped = set(extraction.skipped)
    names = tuple(name for name in stimuli.stimulus_ids if name not in skipped)
    return extraction.layers(names)[0]


def _compute(
    request: Request, files: Sequence[tuple[Feature, Path, dict[str, Any]]], stimuli: Stimuli
) -> str:
    """Compute layers and write their files; the provider that computed them."""
    engine, notes, n_stimuli = request.engine, request.notes, len(stimuli.stimulus_ids)
    device = chosen_device(request.device, notes, engine.has_gpus if engine.remote else None)
    request, provider = replace(request, device=device), PROVIDERS[device]
    features = [feature for feature, _, _ in files]
    layers = [
        LayerRanges(path.resolve(), feature.n_features, {**facts, "provider": provider})
        for feature, path, facts in files
    ]
    folder = layers[0].path.parent
    folder.mkdir(parents=True, exist_ok=True)
    ranges = finished_ranges(layers)
    todo = gaps(ranges, n_stimuli)
    n_done = n_stimuli - sum(end - start for start, end in todo)
    if n_done:
        notes.log(f"going on: an earlier run left {n_done:,} of {n_stimuli:,} images")
    if not request.skip_bad_stimuli:
        held = set(layers[0].stimulus_ids(ranges))
        done = [name for start, end in ranges for name in stimuli.stimulus_ids[start:end]]
        left_out = [name for name in done if name not in held]
        if left_out:
            raise _bad_stimuli(folder, left_out)
    n_joins = len(layers) if engine.remote else _JOINS
    check_space(folder, features, n_stimuli, n_done, n_joins, notes)
    begun = time.perf_counter()
    with progress_bar(f"Extracting {len(layers)} layers", n_stimuli, n_done) as advance:
        if engine.remote:
            ranges += compute_shards(request, features, layers, stimuli, todo, advance)
        elif todo:
            computation = Computation(request, features)
            for places in todo:
                some_stimuli = StimulusRange.of(stimuli, places)
                ranges += computation.run(layers, some_stimuli, RANGE_SECONDS, advance)
    join = partial(join_ranges, sorted(ranges))
    with ThreadPoolExecutor(_JOINS, thread_name_prefix="join") as here:
        for _ in (engine if engine.remote else here).map(join, layers):
            pass
    seconds = duration(time.perf_counter() - begun)
    notes.log(f"extracted {n_stimuli - n_done:,} images in {seconds}")
    return provider


def _facts(own: str, feature: Feature, stimuli: Stimuli) -> dict[str, Any]:
    facts = {
        "store_version": STORE_VERSION,
        "layer": feature.layer.name,
        "shape": list(feature.shape),
        "layout": feature.reduction.layout(feature.layer),
        "reduction": str(feature.reduction),
        "decoding": RULES,
        "fingerprint": sha256_of_json([own, stimuli.stimuli_fingerprint, RULES]),
    }
    return {**facts, "seed": SEED} if feature.reduction.kind == "sketch" else facts


def _lacking(paths: Sequence[Path | RemoteFile], stimuli: Stimuli, request: Request) -> list[str]:
    """Stimuli that a file lacks: only those whose images do not open are left out."""
    held = [stored_ids(path) for path in paths]
    skipped = [name for name in stimuli.stimulus_ids if any(name not in ids for ids in held)]
    if skipped and not request.skip_bad_stimuli:
        raise _bad_stimuli(paths[0], skipped)
    if skipped:
        request.notes.say(
            f"--skip-bad-stimuli: {len(skipped)} images do not open and are left out: "
            f"{_some(skipped)}"
        )
    return skipped


def _bad_stimuli(folder: object, names: Sequence[str]) -> RecordingsError:
    """The error for stimuli that an earlier run left out, and this one is not to."""
    return RecordingsError(
        f"the images of {len(names)} stimuli did not open in an earlier run",
        where=folder,
        found=_some(names),
        fix="Mend them, or pass --skip-bad-stimuli.",
    )


def _some(names: Sequence[str]) -> str:
    """The first few names."""
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")


def _parts_of(store: RemoteFolder) -> Path:
    """The local folder of what is on its way to a store; the same in the next run."""
    return cache_folder() / "parts" / sha256_of_json(store.uri)[:16]


def _fetch_components(features: Sequence[Feature], store: RemoteFolder, local: Path) -> None:
    for path, kept in _components(features, store, local):
        if kept.is_file():
            kept.download(path)
        else:
            path.unlink(missing_ok=True)  # of what was in the store once


def _keep_components(features: Sequence[Feature], store: RemoteFolder, local: Path) -> None:
    for path, kept in _components(features, store, local):
        if stored_facts(kept) != stored_facts(path):
            kept.upload(path)


def _components(
    features: Sequence[Feature], store: RemoteFolder, local: Path
) -> list[tuple[Path, RemoteFile]]:
    """Where the components of each ``pca:K`` are, here and in the store."""
    paths = [components_path(local, x) for x in features if x.reduction.kind == "pca"]
    return [(path, store / f"{path.parent.name}/{path.name}") for path in paths]
