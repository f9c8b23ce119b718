"""The recordings that have a name, as facts for a table or JSON."""

from typing import Any

from nrp_onnx.notes import Notes
from nrp_onnx.recordings.folder import FACTS
from nrp_onnx.recordings.public import imported_folder, is_cached
from nrp_onnx.recordings.registry import read_registry
from nrp_onnx.recordings.registry_entry import Entry
from nrp_onnx.recordings.simulation import N_STIMULI
from nrp_onnx.recordings.simulation.sites import N_IT, N_V4
from nrp_onnx.recordings.sources import simulated_folder


def list_recordings(notes: Notes) -> list[dict[str, Any]]:
    """All that ``--recordings`` knows by name, as JSON, the simulated ones first.

    ``regions`` has the number of sites of each. ``about_bytes`` is what there is to download, as
    far as its size is known; ``sizes_are_known`` says whether that is all of it. ``folder`` is the
    recordings folder if it is cached. What a plug-in does not say is null.

    Raises:
        RecordingsError: if the file that NRP_ONNX_REGISTRY names is not right.
    """
    folder = simulated_folder()
    simulated = {
        "name": "simulated",
        "title": "rendered objects and model sites, SIMULATED",
        "species": None,
        "regions": {"V4": N_V4, "IT": N_IT},
        "n_sites": N_V4 + N_IT,
        "n_stimuli": N_STIMULI,
        "about_bytes": None,
        "sizes_are_known": True,
        "licence": "CC0-1.0",
        "citation": None,
        "visual_degrees": None,
        "simulated": True,
        "cached": (folder / FACTS).is_file(),
        "folder": str(folder) if (folder / FACTS).is_file() else None,
        "source": "nrp_onnx",
    }
    return [simulated, *(_facts(found) for found in read_registry(notes).values())]


def _facts(found: Any) -> dict[str, Any]:
    entry = found if isinstance(found, Entry) else None
    return {
        "name": found.name,
        "title": found.title,
        "species": entry and entry.species,
        "regions": entry and entry.regions,
        "n_sites": entry and sum(entry.regions.values()),
        "n_stimuli": entry and entry.n_stimuli,
        "about_bytes": entry and entry.about_bytes,
        "sizes_are_known": entry is not None and entry.sizes_are_known,
        "licence": entry and entry.licence,
        "citation": entry and entry.citation,
        "visual_degrees": entry and entry.visual_degrees,
        "simulated": None if entry is None else False,
        "cached": entry and is_cached(entry),
        "folder": str(imported_folder(entry)) if entry and is_cached(entry) else None,
        "source": found.source,
    }
