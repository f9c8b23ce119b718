"""The held-out predictions as a table, so that anyone can check the score."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from nrp_onnx.files import whole_file
from nrp_onnx.recordings import Recordings
from nrp_onnx.scoring.splits import Fold

SITES_KEY, REGIONS_KEY = "nrp_onnx.sites", "nrp_onnx.regions"
NEVER_HELD_OUT = -1


def write_predictions(
    path: Path, recordings: Recordings, folds: Sequence[Fold], predictions: dict[str, np.ndarray]
) -> None:
    """Write stimulus_id, fold, the recorded averages and each predictor's rates, in recorded units.

    The fold of an image that is never held out is `NEVER_HELD_OUT`, and its rates are missing. The
    metadata name sites and regions.
    """
    fold_of = np.full(recordings.n_stimuli, NEVER_HELD_OUT, np.int32)
    for number, fold in enumerate(folds):
        fold_of[fold.test] = number
    columns = {"stimulus_id": pa.array(recordings.stimulus_ids, pa.string()), "fold": fold_of}
    for name, rates in {"recorded": recordings.averages, **predictions}.items():
        flat = pa.array(np.ascontiguousarray(rates, np.float32).ravel())
        columns[name] = pa.FixedSizeListArray.from_arrays(flat, recordings.n_sites)
    sites = {SITES_KEY: list(recordings.site_ids), REGIONS_KEY: list(recordings.regions)}
    table = pa.table(columns).replace_schema_metadata(
        {key: json.dumps(value) for key, value in sites.items()}
    )
    with whole_file(path) as part:
        pq.write_table(table, part, use_dictionary=False)
