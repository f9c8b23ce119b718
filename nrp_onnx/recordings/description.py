"""What recordings hold, as facts for a table or JSON."""

from collections import Counter
from typing import Any

import numpy as np
from PIL import Image

from nrp_onnx.recordings.types import Recordings


def describe_recordings(recordings: Recordings) -> dict[str, Any]:
    """Facts about recordings: counts, regions, repetitions, labels, licence, fingerprint."""
    counts = recordings.repetition_counts()
    sizes: Counter[str] = Counter()
    for path in recordings.stimulus_paths:
        with Image.open(path) as image:
            sizes["x".join(map(str, image.size))] += 1
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
        "labels": {
            name: len(set(values)) for name, values in recordings.stimulus_labels.items()
        },
        "licence": recordings.licence,
        "citation": recordings.citation,
        "fingerprint": recordings.fingerprint,
    }
