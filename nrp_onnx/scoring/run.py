"""A finished run, read back from its folder: its numbers, and the rates of the held-out images."""

import json
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from nrp_onnx.bootstrap import (
    Interval,
    Levels,
    bootstrap_means,
    nested_levels,
    percentile_interval,
)
from nrp_onnx.errors import RunError
from nrp_onnx.scoring.result import RegionScore, Result
from nrp_onnx.scoring.run_folder import (
    LEVELS_KEY,
    PREDICTIONS_FILE,
    REGIONS_KEY,
    RESULT_FILE,
    SCALE,
    SITES_KEY,
    seed_column,
)

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class HeldOut:
    """Recorded and predicted rates of the held-out images, as predictions.parquet has them.

    Attributes:
        stimulus_ids: of the images.
        fold: int (n_images,), the fold that held each out.
        site_ids, site_regions: of each site.
        recorded: float64 (n_images, n_sites), in recorded units; NaN = not recorded.
        predictions: for each predictor the same.
        scale: float64 (n_images, n_sites); errors are divided by it to be in units of the score.
        further_seeds: the headline's predictions by each seed after the first.
        site_levels: the animal and session of each site, where they are known.
    """

    stimulus_ids: tuple[str, ...]
    fold: np.ndarray
    site_ids: tuple[str, ...]
    site_regions: tuple[str, ...]
    recorded: np.ndarray
    predictions: dict[str, np.ndarray]
    scale: np.ndarray
    further_seeds: tuple[np.ndarray, ...] = ()
    site_levels: dict[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class FinishedRun:
    """A finished run; predictions.parquet is read when it is first needed.

    Attributes:
        folder: where its files are.
        result: the content of result.json.
    """

    folder: Path
    result: Result

    @property
    def nrp_error(self) -> float:
        """Mean over regions of their NRP-errors, in `units`."""
        return self.result.nrp_error

    @cached_property
    def ci95(self) -> Interval:
        """The 95 % interval of `nrp_error`, by the bootstrap that ``protocol.interval`` names."""
        if self.result.nrp_error_ci95 is not None:
            return self.result.nrp_error_ci95
        seed = self.result.protocol.seed
        means = [self.resampled(name, seed) for name in self.region_names]
        return percentile_interval(np.mean(means, axis=0))

    @property
    def units(self) -> str:
        """Of all errors: ``z`` (standard deviations of each site) or those of the recordings."""
        return self.result.units

    @property
    def headline(self) -> str:
        """The predictor whose error is the NRP-error."""
        return self.result.headline

    @property
    def regions(self) -> dict[str, RegionScore]:
        """The numbers of each region."""
        return self.result.regions

    @property
    def notes(self) -> list[str]:
        """The choices that were made for the user."""
        return self.result.notes

    @cached_property
    def held_out(self) -> HeldOut:
        """What predictions.parquet holds."""
        return read_predictions(self.folder, self.result)

    @property
    def predictions(self) -> dict[str, np.ndarray]:
        """Held-out rates by predictor, float64 (n_images, n_sites), in recorded units."""
        return self.held_out.predictions

    @property
    def recorded(self) -> np.ndarray:
        """Recorded rates, float64 (n_images, n_sites); NaN = not recorded."""
        return self.held_out.recorded

    @property
    def stimulus_ids(self) -> tuple[str, ...]:
        """Ids of the held-out images: the rows of `predictions` and `recorded`."""
        return self.held_out.stimulus_ids

    @property
    def site_ids(self) -> tuple[str, ...]:
        """Ids of the sites: the columns of `predictions` and `recorded`."""
        return self.held_out.site_ids

    @property
    def site_regions(self) -> tuple[str, ...]:
        """The region of each site."""
        return self.held_out.site_regions

    @property
    def fold(self) -> np.ndarray:
        """The fold that held each image out, int (n_images,)."""
        return self.held_out.fold

    @property
    def scale(self) -> np.ndarray:
        """What errors are divided by to be in `units`, float64 (n_images, n_sites)."""
        return self.held_out.scale

    @property
    def region_names(self) -> tuple[str, ...]:
        """The regions, in the order in which their first sites come."""
        return tuple(dict.fromkeys(self.site_regions))

    def sites_of(self, region: str) -> np.ndarray:
        """Places of the sites of a region, int (n_sites of the region,)."""
        return np.flatnonzero(np.array(self.site_regions) == region)

    @cached_property
    def errors(self) -> np.ndarray:
        """Absolute errors of the `headline` predictor in `units`, float64 (n_images, n_sites)."""
        return self.absolute_errors(self.headline)

    def errors_of(self, region: str) -> np.ndarray:
        """The errors at the sites of a region, float64 (n_images, n_sites of the region)."""
        return self.errors[:, self.sites_of(region)]

    def levels_of(self, region: str) -> Levels:
        """The groups that the sites of a region are drawn in, the outermost level first."""
        found = nested_levels(self.held_out.site_levels, self.sites_of(region))
        return tuple(found.values())

    def resampled(self, region: str, seed: int, power: int = 1) -> np.ndarray:
        """The NRP-error of a region in each resample of images, seeds and sites, float64 (n_resamples,).

        Args:
            seed: of the bootstrap.
            power: 2 for the mean squared error.
        """
        sites, held_out = self.sites_of(region), self.held_out
        recorded, scale = self.recorded[:, sites], self.scale[:, sites]
        errors = [
            np.abs(found[:, sites] - recorded) / scale
            for found in (self.predictions[self.headline], *held_out.further_seeds)
        ]
        return bootstrap_means(np.stack(errors) ** power, seed, levels=self.levels_of(region))

    def absolute_errors(self, predictor: str) -> np.ndarray:
        """Absolute errors of a predictor in `units`, float64 (n_images, n_sites); NaN = not recorded."""
        errors: np.ndarray = np.abs(self.predictions[predictor] - self.recorded) / self.scale
        return errors

    def to_frame(self) -> "pd.DataFrame":
        """The numbers of all predictors as a pandas table, one row a region and predictor.

        Raises:
            RunError: if pandas is not installed.
        """
        try:
            import pandas as pd
        except ImportError:
            raise RunError(
                "pandas is not installed", expected="pandas", fix="Install it: pip install pandas"
            ) from None
        rows = [
            {
                "region": region,
                "predictor": name,
                "n_sites": found.n_sites,
                "mae": score.mae,
                "low": score.mae_ci95[0],
                "high": score.mae_ci95[1],
                "mse": score.mse,
                "mse_low": None if score.mse_ci95 is None else score.mse_ci95[0],
                "mse_high": None if score.mse_ci95 is None else score.mse_ci95[1],
                "units": self.units,
                "r2": score.r2,
                "pearson_r": score.pearson_r,
                "pearson_r_normalised": score.pearson_r_normalised,
                "r2_normalised": score.r2_normalised,
                "explainable_removed": score.explainable_removed,
                "headline": name == self.headline,
                "noise_floor": found.noise_floor,
                "simulated": self.result.recordings.simulated,
            }
            for region, found in self.regions.items()
            for name, score in found.predictors.items()
        ]
        return pd.DataFrame(rows)

    def __repr__(self) -> str:
        low, high = self.ci95
        simulated = " SIMULATED" if self.result.recordings.simulated else ""
        return (
            f"<Run {self.result.model.file} on {self.result.recordings.name}{simulated}: NRP-error "
            f"{self.nrp_error:.3f} [{low:.3f}, {high:.3f}] {self.units}>"
        )


def open_finished_run(folder: str | Path) -> FinishedRun:
    """Open the folder of a finished run.

    Args:
        folder: what ``score`` wrote to.

    Raises:
        RunError: if result.json is not there, or is not what a score leaves.
    """
    folder = Path(folder)
    path = folder / RESULT_FILE
    try:
        return FinishedRun(folder, Result.from_json(json.loads(path.read_text(encoding="utf-8"))))
    except OSError as error:
        raise _unfinished(path, error) from None
    except ValueError as error:
        raise _unreadable(folder, error) from None


def read_run(folder: Path) -> FinishedRun:
    """`open_finished_run`, with the predictions read and checked at once.

    Raises:
        RunError: if a file is not there, or is not what a score leaves.
    """
    run = open_finished_run(folder)
    run.stimulus_ids  # noqa: B018  reads predictions.parquet
    return run


def read_predictions(folder: Path, result: Result) -> HeldOut:
    """Read predictions.parquet of a run.

    Raises:
        RunError: if it is not there, or is not what a score leaves.
    """
    path = folder / PREDICTIONS_FILE
    try:
        table = pq.read_table(path)
        metadata = table.schema.metadata or {}
        facts = {key: json.loads(metadata[key.encode()]) for key in (SITES_KEY, REGIONS_KEY)}
        # An older version has none.
        levels = json.loads(metadata.get(LEVELS_KEY.encode(), b"{}"))
        rates = {
            name: _rates(table, name)
            for name in ("recorded", *next(iter(result.regions.values())).predictors)
        }
        columns = (seed_column(result.headline, place) for place in range(1, result.protocol.seeds))
        further = [_rates(table, name) for name in columns if name in table.column_names]
        fold = table["fold"].to_numpy()
        stimulus_ids = table["stimulus_id"].to_pylist()
    except OSError as error:
        raise _unfinished(path, error) from None
    except (ValueError, KeyError, TypeError, StopIteration, pa.ArrowInvalid) as error:
        raise _unreadable(folder, error) from None
    recorded = rates.pop("recorded")
    scale = np.ones_like(recorded)
    held_out = np.flatnonzero(fold >= 0)
    if SCALE in table.column_names:
        scale = _rates(table, SCALE)
    elif result.protocol.normalise == "zscore":
        for number in np.unique(fold[held_out]):
            # As in the score: by each site's deviation over the images that this fold trained on.
            deviation = np.nanstd(recorded[fold != number], axis=0)
            scale[fold == number] = np.where(deviation > 0, deviation, 1.0)
    return HeldOut(
        stimulus_ids=tuple(stimulus_ids[place] for place in held_out),
        fold=fold[held_out],
        site_ids=tuple(facts[SITES_KEY]),
        site_regions=tuple(facts[REGIONS_KEY]),
        recorded=recorded[held_out],
        predictions={name: predicted[held_out] for name, predicted in rates.items()},
        scale=scale[held_out],
        further_seeds=tuple(predicted[held_out] for predicted in further),
        site_levels={name: tuple(values) for name, values in levels.items()},
    )


def _rates(table: pa.Table, name: str) -> np.ndarray:
    rates: np.ndarray = np.stack(table[name].to_numpy()).astype(float)
    return rates


def _unfinished(path: Path, error: OSError) -> RunError:
    return RunError(
        "this is no finished run",
        where=error.filename or path,
        expected=f"a folder with {RESULT_FILE} and {PREDICTIONS_FILE}",
        found=error.strerror or str(error),
        fix="Score into this folder first.",
    )


def _unreadable(folder: Path, error: Exception) -> RunError:
    return RunError(
        "the files of this run cannot be read, or are of an older version",
        where=folder,
        expected=f"{RESULT_FILE} and {PREDICTIONS_FILE} as a score writes them",
        found=f"{type(error).__name__}: {error}",
        fix="Score again with --overwrite.",
    )
