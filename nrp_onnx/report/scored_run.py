"""A finished run as it lies in its folder: the result, the held-out predictions, the trials."""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from nrp_onnx.errors import OptionError
from nrp_onnx.predictor.trial_record import TRIALS_FILE
from nrp_onnx.scoring.predictions import REGIONS_KEY, SITES_KEY
from nrp_onnx.scoring.run_folder import RESULT_FILE

PREDICTIONS_FILE = "predictions.parquet"


@dataclass(frozen=True, eq=False)
class Responses:
    """Recorded and predicted rates of the held-out images, in recorded units.

    Attributes:
        stimulus_ids: of the n_images held-out images.
        fold: int array (n_images,), the fold that held each out.
        site_ids, regions: one a site.
        recorded: float64 array (n_images, n_sites); NaN is missing.
        predicted: for each predictor the same shape.
        scale: float64 array (n_images, n_sites): errors are divided by it to be in score units.
    """

    stimulus_ids: list[str]
    fold: np.ndarray
    site_ids: list[str]
    regions: list[str]
    recorded: np.ndarray
    predicted: dict[str, np.ndarray]
    scale: np.ndarray

    def sites_of(self, region: str) -> np.ndarray:
        """Places of the sites of a region."""
        return np.flatnonzero(np.array(self.regions) == region)


@dataclass(frozen=True)
class ScoredRun:
    """One run.

    Attributes:
        folder: where its files are.
        result: the content of result.json.
        trials: the heads of the search, one record each, as in trials.parquet; of a run without
            that file, what result.json has of them.
    """

    folder: Path
    result: dict[str, Any]
    trials: list[dict[str, Any]]

    @property
    def simulated(self) -> bool:
        return bool(self.result["recordings"]["simulated"])

    @property
    def model_name(self) -> str:
        return Path(self.result["model"]["file"]).stem

    @property
    def units(self) -> str:
        """Of the errors, in words."""
        units: str = self.result["units"]
        return "standard deviations" if units == "z" else units

    @cached_property
    def responses(self) -> Responses | None:
        """The held-out responses; None if predictions.parquet does not name its sites."""
        table = pq.read_table(self.folder / PREDICTIONS_FILE)
        facts = table.schema.metadata or {}
        if SITES_KEY.encode() not in facts:
            return None
        fold = table["fold"].to_numpy()
        held_out = fold >= 0
        rates = {
            name: _matrix(table[name])
            for name in table.column_names
            if name not in ("stimulus_id", "fold")
        }
        recorded = rates.pop("recorded")
        zscore = self.result["protocol"]["normalise"] == "zscore"
        scale = _scale(recorded, fold) if zscore else np.ones_like(recorded)
        return Responses(
            np.array(table["stimulus_id"].to_pylist())[held_out].tolist(),
            fold[held_out],
            json.loads(facts[SITES_KEY.encode()]),
            json.loads(facts[REGIONS_KEY.encode()]),
            recorded[held_out],
            {name: predicted[held_out] for name, predicted in rates.items()},
            scale[held_out],
        )


def read_run(folder: Path) -> ScoredRun:
    """Read what `nrp-onnx score` left in ``folder``.

    Raises:
        OptionError: if there is no finished run.
    """
    for name in (RESULT_FILE, PREDICTIONS_FILE):
        if not (folder / name).is_file():
            raise OptionError(
                "this is no finished run",
                where=folder,
                expected=f"{RESULT_FILE} and {PREDICTIONS_FILE}",
                found=f"no {name}",
                fix="Give the output folder of: nrp-onnx score",
            )
    try:
        result: dict[str, Any] = json.loads((folder / RESULT_FILE).read_text(encoding="utf-8"))
    except ValueError as error:
        raise OptionError(
            "the result of this run cannot be read",
            where=folder / RESULT_FILE,
            expected="JSON",
            found=error,
            fix="Score it again with --overwrite.",
        ) from None
    if (folder / TRIALS_FILE).is_file():
        trials = pq.read_table(folder / TRIALS_FILE).to_pylist()
    else:
        kept = result["search"].get("trials")
        trials = kept if isinstance(kept, list) else []
    return ScoredRun(folder, result, trials)


def _matrix(column: pa.ChunkedArray) -> np.ndarray:
    """A column of fixed-size lists as float64 array (n_rows, list size)."""
    flat = np.concatenate([chunk.flatten().to_numpy() for chunk in column.chunks])
    return flat.reshape(len(column), -1).astype(np.float64)


def _scale(recorded: np.ndarray, fold: np.ndarray) -> np.ndarray:
    """The deviation of each site over the training images of the fold of each row."""
    scale = np.ones_like(recorded)
    for number in np.unique(fold[fold >= 0]):
        deviation = np.nanstd(recorded[fold != number], axis=0)
        scale[fold == number] = np.where(deviation > 0, deviation, 1.0)
    return scale
