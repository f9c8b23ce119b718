"""Runs on the same recordings beside each other: paired differences, and ranks with intervals."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from nrp_onnx.errors import OptionError, RunError
from nrp_onnx.scoring.result import FinishedRun, read_run
from nrp_onnx.statistics import (
    bootstrap_means,
    compare_errors,
    mean_absolute_error,
    percentile_interval,
)


def compare_runs(folders: Sequence[Path], seed: int = 0) -> dict[str, Any]:
    """Compare the NRP-errors of runs, image by image and site by site.

    One bootstrap over images and sites serves all runs: each resample gives every run an NRP-error
    (the mean over regions), so every difference and every rank has an interval.

    Args:
        folders: of two or more finished runs on the same recordings.
        seed: of the bootstrap.

    Returns:
        ``runs``, from the least NRP-error up, each with its rank; ``pairs``, every two of them, the
        one of lesser error first; ``recordings``, ``units``, ``seed``.

    Raises:
        OptionError: if there are fewer than two folders, or one comes twice.
        RunError: if a run cannot be read, or the runs do not belong together.
    """
    if len({folder.resolve() for folder in folders}) < max(2, len(folders)):
        raise OptionError(
            "this is nothing to compare",
            where="RUNS",
            expected="two or more folders of runs, each once",
            found=", ".join(map(str, folders)),
        )
    runs = [_Scored.of(read_run(folder), seed) for folder in folders]
    for other in runs[1:]:
        _check_alike(runs[0].run, other.run)
    runs.sort(key=lambda scored: scored.value)
    resampled = np.stack([scored.means for scored in runs])
    # Ranks in every resample; runs that are equal share the better rank.
    ranks = 1 + (resampled[None] < resampled[:, None]).sum(axis=1)
    result = runs[0].run.result
    return {
        "recordings": {key: result["recordings"][key] for key in _FACTS},
        "units": result["units"],
        "n_images": len(runs[0].run.stimulus_ids),
        "seed": seed,
        "runs": [
            {"rank": 1 + sum(other.value < scored.value for other in runs), **scored.record(of)}
            for scored, of in zip(runs, ranks, strict=True)
        ],
        "pairs": [_pair(first, second) for first, second in combinations(runs, 2)],
    }


_FACTS = ("name", "simulated", "fingerprint")


@dataclass(frozen=True, eq=False)
class _Scored:
    """A run with its NRP-error and that of each region: the value, and what it is in each resample."""

    run: FinishedRun
    value: float
    means: np.ndarray
    regions: dict[str, tuple[float, np.ndarray]]

    @classmethod
    def of(cls, run: FinishedRun, seed: int) -> "_Scored":
        regions = {}
        for name in run.region_names:
            errors = run.errors_of(name)
            regions[name] = mean_absolute_error(errors), bootstrap_means(errors, seed)
        return cls(
            run,
            float(np.mean([value for value, _ in regions.values()])),
            np.mean([means for _, means in regions.values()], axis=0),
            regions,
        )

    def record(self, ranks: np.ndarray) -> dict[str, Any]:
        low, high = np.quantile(ranks, [0.025, 0.975], method="inverted_cdf")
        return {
            "rank_ci95": [int(low), int(high)],
            "folder": str(self.run.folder),
            "model": self.run.result["model"]["file"],
            "nrp_error": self.value,
            "ci95": list(percentile_interval(self.means)),
            "regions": {
                name: {"value": value, "ci95": list(percentile_interval(means))}
                for name, (value, means) in self.regions.items()
            },
        }


def _pair(first: _Scored, second: _Scored) -> dict[str, Any]:
    regions = {
        name: compare_errors(
            first.run.errors_of(name),
            second.run.errors_of(name),
            first.regions[name][1] - second.regions[name][1],
        )
        for name in first.run.region_names
    }
    return {
        "first": str(first.run.folder),
        "second": str(second.run.folder),
        "difference": first.value - second.value,
        "ci95": list(percentile_interval(first.means - second.means)),
        "wins": sum(region["wins"] for region in regions.values()),
        "n_sites": sum(region["n_sites"] for region in regions.values()),
        "regions": regions,
    }


def _check_alike(run: FinishedRun, other: FinishedRun) -> None:
    facts = {
        "recordings": lambda r: r.result["recordings"]["fingerprint"],
        "sites": lambda r: r.site_ids,
        "normalisation": lambda r: r.result["protocol"]["normalise"],
        "held-out images": lambda r: r.stimulus_ids,
    }
    for name, fact in facts.items():
        here, there = fact(run), fact(other)
        if here != there:
            raise RunError(
                f"the runs do not have the same {name}",
                where=f"{run.folder} and {other.folder}",
                expected=f"{name} alike in both",
                found=f"{_short(here)} and {_short(there)}",
                fix="Score both models with the same --recordings, --region, --normalise and "
                "--protocol.",
            )


def _short(fact: str | tuple[str, ...]) -> str:
    return f"{len(fact)} of them" if isinstance(fact, tuple) else fact[:12]


def nrp_error_interval(folder: Path, seed: int = 0) -> tuple[float, float]:
    """The 95 % interval of a run's NRP-error, the mean over regions.

    Raises:
        RunError: if the run cannot be read.
    """
    return percentile_interval(_Scored.of(read_run(folder), seed).means)


def paired_difference(folder: Path, other: Path, seed: int = 0) -> dict[str, Any]:
    """A run's NRP-error less that of another, as in ``pairs`` of `compare_runs`.

    Raises:
        RunError: if a run cannot be read, or the two do not belong together.
    """
    first, second = read_run(folder), read_run(other)
    _check_alike(first, second)
    return _pair(_Scored.of(first, seed), _Scored.of(second, seed))
