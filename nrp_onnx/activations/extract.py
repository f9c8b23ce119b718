"""Extracts activations of stimuli into a folder that one process at a time writes to."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import filelock

from nrp_onnx.activations.components import with_components
from nrp_onnx.activations.compute import Request
from nrp_onnx.activations.images import Stimuli
from nrp_onnx.activations.layer_file import components_path, stored_facts
from nrp_onnx.activations.missing_layers import Extraction, extract_layers
from nrp_onnx.activations.remote import RemoteFile, RemoteFolder
from nrp_onnx.activations.space import writing_to
from nrp_onnx.backbone.feature_graph import Feature
from nrp_onnx.backbone.model import Backbone
from nrp_onnx.backbone.preprocessing import Preprocessing
from nrp_onnx.engine import Engine, LocalEngine
from nrp_onnx.errors import OutputError
from nrp_onnx.files import sha256_of_json
from nrp_onnx.notes import Notes
from nrp_onnx.recordings.registry import cache_folder

_LOCK = ".lock"


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
    overwrite: bool = True,
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
        *(backbone, preprocessing, device, notes, skip_bad_stimuli, overwrite),
        engine or LocalEngine(),
    )
    store = folder if isinstance(folder, RemoteFolder) else None
    local = _parts_of(store) if store else folder
    assert isinstance(local, Path)
    with writing_to(folder), _only_one(local):
        if store:
            store.make()
            _fetch_components(features, store, local)
        features = with_components(request, features, stimuli, local)
        if store:
            _keep_components(features, store, local)
        return extract_layers(request, features, stimuli, local, store)


def _parts_of(store: RemoteFolder) -> Path:
    """The local folder of what is on its way to a store; the same in the next run."""
    return cache_folder() / "parts" / sha256_of_json(store.uri)[:16]


def _fetch_components(features: Sequence[Feature], store: RemoteFolder, local: Path) -> None:
    for path, kept in _components(features, store, local):
        if kept.is_file():
            kept.download(path)


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


@contextmanager
def _only_one(folder: Path) -> Iterator[None]:
    """Keep other processes out of the folder while the block runs."""
    folder.mkdir(parents=True, exist_ok=True)
    try:
        held = filelock.FileLock(folder / _LOCK).acquire(blocking=False)
    except filelock.Timeout:
        raise OutputError(
            "another process is extracting into this folder",
            where=folder,
            fix="Wait for it, or choose another folder with -o.",
        ) from None
    with held:
        yield
