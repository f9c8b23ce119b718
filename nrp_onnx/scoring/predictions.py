"""The held-out predictions as a table, so that anyone can check the score."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from nrp_onnx.files import whole_file
from nrp_onnx.recordings import Recordings
from nrp_onnx.scoring.splits import Fold


def write_predictions(
    path: Path, recordings: Recordings, folds: Sequence[Fold], predictions: dict[str, np.ndarray]
) -> None:
    """Write stimulus_id, fold, the recorded averages and each predictor's rates, in recorded units."""
    fold_of = np.empty(recordings.n_stimuli, np.int32)
    for number, fold in enumerate(folds):
        fold_of[fold.test] = number
    columns = {"stimulus_id": pa.array(recordings.stimulus_ids, pa.string()), "fold": fold_of}
    for name, rates in {"recorded": recordings.averages, **predictions}.items():
        flat = pa.array(np.ascontiguousarray(rates, np.float32).ravel())
        columns[name] = pa.FixedSizeListArray.from_arrays(flat, recordings.n_sites)
    with whole_file(path) as part:
        pq.write_table(pa.table(columns), part, use_dictionary=False)
