"""Runs on the same recordings beside each other: paired differences, and ranks with intervals."""

from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from nrp_onnx.errors import OptionError, RunError
from nrp_onnx.scoring.finished_run import FinishedRun, read_run
from nrp_onnx.scoring.metrics import bootstrap_means, mean_absolute_error, percentile_interval
from nrp_onnx.scoring.paired import compare_errors


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
    runs = [read_run(folder) for folder in folders]
    for other in runs[1:]:
        _check_alike(runs[0], other)
    columns = _sites_of_regions(runs[0])
    found = {run.folder: resampled_errors(run, seed) for run in runs}
    means = {folder: np.mean([m for _, m in of.values()], axis=0) for folder, of in found.items()}
    values = {folder: float(np.mean([v for v, _ in of.values()])) for folder, of in found.items()}
    runs.sort(key=lambda run: values[run.folder])
    # Ranks in every resample; runs that are equal share the better rank.
    resampled = np.stack([means[run.folder] for run in runs])
    ranks = 1 + (resampled[None] < resampled[:, None]).sum(axis=1)
    listed = []
    for run, of_resamples in zip(runs, ranks, strict=True):
        low, high = np.quantile(of_resamples, [0.025, 0.975], method="inverted_cdf")
        listed.append(
            {
                "folder": str(run.folder),
                "model": run.result["model"]["file"],
                "rank": 1 + sum(values[other.folder] < values[run.folder] for other in runs),
                "rank_ci95": [int(low), int(high)],
                "nrp_error": values[run.folder],
                "ci95": list(percentile_interval(means[run.folder])),
                "regions": {
                    name: {"value": region, "ci95": list(percentile_interval(of))}
                    for name, (region, of) in found[run.folder].items()
                },
            }
        )
    pairs = []
    for first, second in combinations(runs, 2):
        regions = {
            name: compare_errors(first.errors[:, sites], second.errors[:, sites], seed)
            for name, sites in columns.items()
        }
        apart = means[first.folder] - means[second.folder]
        pairs.append(
            {
                "first": str(first.folder),
                "second": str(second.folder),
                "difference": values[first.folder] - values[second.folder],
                "ci95": list(percentile_interval(apart)),
                "wins": sum(region["wins"] for region in regions.values()),
                "n_sites": sum(region["n_sites"] for region in regions.values()),
                "regions": regions,
            }
        )
    about = runs[0].result["recordings"]
    return {
        "recordings": {key: about[key] for key in ("name", "simulated", "fingerprint")},
        "units": runs[0].result["units"],
        "n_images": len(runs[0].stimulus_ids),
        "seed": seed,
        "runs": listed,
        "pairs": pairs,
    }


def resampled_errors(run: FinishedRun, seed: int) -> dict[str, tuple[float, np.ndarray]]:
    """For each region its NRP-error, and what it is in every resample, float64 (2000,).

    With one seed, the resamples of all regions of all runs on the same recordings belong together:
    the mean over regions and the difference of two runs have the percentile intervals of theirs.
    """
    return {
        name: (
            mean_absolute_error(run.errors[:, sites]),
            bootstrap_means(run.errors[:, sites], seed),
        )
        for name, sites in _sites_of_regions(run).items()
    }


def _sites_of_regions(run: FinishedRun) -> dict[str, np.ndarray]:
    regions = np.array(run.regions)
    return {name: np.flatnonzero(regions == name) for name in run.region_names}


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
