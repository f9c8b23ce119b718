"""Recordings as facts for a table or JSON: one set, or all that have a name."""

from collections import Counter
from typing import Any

import numpy as np

from nrp_onnx.decoding import image_size
from nrp_onnx.notes import Notes
from nrp_onnx.recordings.fixed_splits import PARTS, FixedSplit
from nrp_onnx.recordings.folder import FACTS
from nrp_onnx.recordings.open import simulated_folder
from nrp_onnx.recordings.public import imported_folder, is_cached
from nrp_onnx.recordings.recordings import Recordings
from nrp_onnx.recordings.registry import read_registry
from nrp_onnx.recordings.registry_entry import Entry
from nrp_onnx.recordings.reliability import site_reliability
from nrp_onnx.recordings.silent_sites import silent
from nrp_onnx.recordings.simulation.simulate import N_STIMULI
from nrp_onnx.recordings.simulation.sites import N_IT, N_V4

_MOST_CLASSES = 50


def describe_recordings(recordings: Recordings) -> dict[str, Any]:
    """Facts about recordings, as JSON: counts, regions, repetitions, labels, licence, fingerprint.

    ``repetitions`` counts the responses of a site to a stimulus. ``labels`` has for each column of
    stimuli.csv how many classes it has and, up to 50, how many stimuli are in each. ``reliability``
    is the median over sites of the reliability of their averages, by region; None without repetitions.

    Raises:
        RecordingsError: if an image does not open.
    """
    counts = recordings.repetition_counts()
    label = recordings.stratification_label
    sizes = Counter("x".join(map(str, image_size(path))) for path in recordings.stimulus_paths)
    return {
        "name": recordings.name,
        "simulated": recordings.simulated,
        "units": recordings.units,
        "normalised": recordings.normalised,
        "time_window_ms": recordings.time_window_ms,
        "visual_degrees": recordings.visual_degrees,
        "n_stimuli": recordings.n_stimuli,
        "image_sizes": dict(sizes),
        "n_sites": recordings.n_sites,
        "regions": dict(Counter(recordings.regions)),
        "animals": dict(Counter(recordings.site_labels.get("animal", ()))),
        "repetitions": {
            "min": int(counts.min()),
            "median": float(np.median(counts)),
            "max": int(counts.max()),
        },
        "missing_share": float(np.isnan(recordings.responses).mean()),
        "reliability": _reliability(recordings),
        "silent_sites": [
            recordings.site_ids[place] for place in np.flatnonzero(silent(recordings.averages))
        ],
        "labels": {name: _classes(values) for name, values in recordings.stimulus_labels.items()},
        "splits": {name: _parts(recordings, split) for name, split in recordings.splits.items()},
        "stratify_on": label if label in recordings.stimulus_labels else None,
        "licence": recordings.licence,
        "citation": recordings.citation,
        "fingerprint": recordings.fingerprint,
    }


def _parts(recordings: Recordings, split: FixedSplit) -> dict[str, Any]:
    """Of each part of a split its number of stimuli, and how often a site was recorded for one."""
    counts = np.median(recordings.repetition_counts(), axis=1)
    place_of = {name: place for place, name in enumerate(recordings.stimulus_ids)}
    parts = {part: [place_of[x] for x in getattr(split, part)] for part in PARTS}
    return {
        part: {"n_stimuli": len(places), "repetitions": float(np.median(counts[places]))}
        for part, places in parts.items()
        if places
    }


def _reliability(recordings: Recordings) -> dict[str, float | None]:
    """For each region the median reliability of its sites; None without repetitions."""
    reliability = site_reliability(recordings)
    region_of = np.array(recordings.regions)
    found = {name: reliability[region_of == name] for name in recordings.region_names}
    return {
        name: None if np.isnan(values).all() else float(np.nanmedian(values))
        for name, values in found.items()
    }


def _classes(values: tuple[str, ...]) -> dict[str, Any]:
    counts = Counter(values)
    few = len(counts) <= _MOST_CLASSES
    return {"n_classes": len(counts), "classes": dict(sorted(counts.items())) if few else None}


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
