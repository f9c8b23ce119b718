"""A finished run, read back from its folder: its result, and the rates of the held-out images."""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from nrp_onnx.errors import RunError
from nrp_onnx.scoring.run_folder import PREDICTIONS_FILE, REGIONS_KEY, RESULT_FILE, SITES_KEY

_KEYS = (SITES_KEY, REGIONS_KEY)


@dataclass(frozen=True, eq=False)
class FinishedRun:
    """What runs are compared and reported by.

    Attributes:
        result: the content of result.json.
        stimulus_ids: of the held-out images.
        fold: int array (n_images,), the fold that held each out.
        site_ids, regions: of each site.
        recorded: float64 (n_images, n_sites), in recorded units; NaN = not recorded.
        predicted: for each predictor the same.
        scale: float64 (n_images, n_sites); errors are divided by it to be in units of the score.
    """

    folder: Path
    result: dict[str, Any]
    stimulus_ids: tuple[str, ...]
    fold: np.ndarray
    site_ids: tuple[str, ...]
    regions: tuple[str, ...]
    recorded: np.ndarray
    predicted: dict[str, np.ndarray]
    scale: np.ndarray

    @property
    def region_names(self) -> tuple[str, ...]:
        """The regions, in the order in which their first sites come."""
        return tuple(dict.fromkeys(self.regions))

    def sites_of(self, region: str) -> np.ndarray:
        """Places of the sites of a region."""
        return np.flatnonzero(np.array(self.regions) == region)

    @cached_property
    def errors(self) -> np.ndarray:
        """Absolute errors of the NRP heads in units of the score, float64 (n_images, n_sites)."""
        return self.absolute_errors("nrp")

    def errors_of(self, region: str) -> np.ndarray:
        """The errors at the sites of a region, float64 (n_images, n_sites of the region)."""
        return self.errors[:, self.sites_of(region)]

    def absolute_errors(self, predictor: str) -> np.ndarray:
        """Absolute errors of a predictor in units of the score; NaN = not recorded."""
        errors: np.ndarray = np.abs(self.predicted[predictor] - self.recorded) / self.scale
        return errors


def read_run(folder: Path) -> FinishedRun:
    """Read result.json and predictions.parquet of a run.

    Raises:
        RunError: if one is not there, or is not what a score leaves.
    """
    result_path, path = folder / RESULT_FILE, folder / PREDICTIONS_FILE
    try:
        result = json.loads(result_path.read_text(encoding="utf-8"))
        normalise = result["protocol"]["normalise"]
        table = pq.read_table(path)
        facts = {key: json.loads((table.schema.metadata or {})[key.encode()]) for key in _KEYS}
        rates = {
            name: np.stack(table[name].to_numpy()).astype(float)
            for name in ("recorded", *next(iter(result["regions"].values()))["predictors"])
        }
        fold = table["fold"].to_numpy()
        stimulus_ids = table["stimulus_id"].to_pylist()
    except OSError as error:
        raise RunError(
            "this is no finished run",
            where=error.filename or path,
            expected=f"a folder with {RESULT_FILE} and {PREDICTIONS_FILE}",
            found=error.strerror or str(error),
            fix="Run nrp-onnx score with -o FOLDER first.",
        ) from None
    except (ValueError, KeyError, TypeError, StopIteration, pa.ArrowInvalid) as error:
        raise RunError(
            "the files of this run cannot be read, or are of an older version",
            where=folder,
            expected=f"{RESULT_FILE} and {PREDICTIONS_FILE} as nrp-onnx score writes them",
            found=f"{type(error).__name__}: {error}",
            fix="Score again with --overwrite.",
        ) from None
    recorded = rates.pop("recorded")
    scale = np.ones_like(recorded)
    held_out = np.flatnonzero(fold >= 0)
    if normalise == "zscore":
        for number in np.unique(fold[held_out]):
            # As in the score: by each site's deviation over the images that this fold trained on.
            deviation = np.nanstd(recorded[fold != number], axis=0)
            scale[fold == number] = np.where(deviation > 0, deviation, 1.0)
    return FinishedRun(
        folder,
        result,
        tuple(stimulus_ids[place] for place in held_out),
        fold[held_out],
        tuple(facts[SITES_KEY]),
        tuple(facts[REGIONS_KEY]),
        recorded[held_out],
        {name: predicted[held_out] for name, predicted in rates.items()},
        scale[held_out],
    )
