"""What recordings hold, as facts for a table or JSON."""

from collections import Counter
from typing import Any

import numpy as np

from nrp_onnx.recordings.images import image_size
from nrp_onnx.recordings.reliability import site_reliability
from nrp_onnx.recordings.types import Recordings

_MOST_CLASSES = 50


def describe_recordings(recordings: Recordings) -> dict[str, Any]:
    """Facts about recordings, as JSON: counts, regions, repetitions, labels, licence, fingerprint.

    ``repetitions`` counts the responses of a site to a stimulus. ``labels`` has for each column of
    stimuli.csv how many classes it has and, up to 50, how many stimuli are in each. ``reliability``
    is the median over sites of the split-half reliability, by region; None without repetitions.

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
        "labels": {name: _classes(values) for name, values in recordings.stimulus_labels.items()},
        "stratify_on": label if label in recordings.stimulus_labels else None,
        "licence": recordings.licence,
        "citation": recordings.citation,
        "fingerprint": recordings.fingerprint,
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
