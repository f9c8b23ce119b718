"""What recordings hold, as facts for a table or JSON."""

from collections import Counter
from typing import Any

import numpy as np

from nrp_onnx.recordings.images import image_size
from nrp_onnx.recordings.types import Recordings

_MOST_CLASSES = 50


def describe_recordings(recordings: Recordings) -> dict[str, Any]:
    """Facts about recordings, as JSON: counts, regions, repetitions, labels, licence, fingerprint.

    ``repetitions`` counts the responses of a site to a stimulus. ``labels`` has for each column of
    stimuli.csv how many classes it has and, up to 50, how many stimuli are in each.

    Raises:
        RecordingsError: if an image does not open.
    """
    counts = recordings.repetition_counts()
    sizes = Counter("x".join(map(str, image_size(path))) for path in recordings.stimulus_paths)
    return {
        "name": recordings.name,
        "simulated": recordings.simulated,
        "units": recordings.units,
        "normalised": recordings.normalised,
        "time_window_ms": recordings.time_window_ms,
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
        "labels": {name: _classes(values) for name, values in recordings.stimulus_labels.items()},
        "licence": recordings.licence,
        "citation": recordings.citation,
        "fingerprint": recordings.fingerprint,
    }


def _classes(values: tuple[str, ...]) -> dict[str, Any]:
    counts = Counter(values)
    few = len(counts) <= _MOST_CLASSES
    return {"n_classes": len(counts), "classes": dict(sorted(counts.items())) if few else None}
