"""Runs on the same recordings beside each other: paired differences, and ranks with intervals."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import msgspec
import numpy as np

from nrp_onnx.bootstrap import Interval, percentile_interval
from nrp_onnx.errors import OptionError, RunError
from nrp_onnx.scoring.run import FinishedRun
from nrp_onnx.significance import bootstrap_p, holm, simultaneous_intervals, site_tests
from nrp_onnx.statistics import PairedDifference, compare_errors, mean_absolute_error


@dataclass(frozen=True)
class ComparedRecordings:
    """What all compared runs were scored on."""

    name: str
    simulated: bool
    fingerprint: str


@dataclass(frozen=True)
class RegionError:
    """The NRP-error of a run in one region, with its 95 % interval."""

    value: float
    ci95: Interval


@dataclass(frozen=True)
class ComparedRun:
    """A run among others; ``rank`` 1 has the least NRP-error, that of the predictor ``headline``."""

    rank: int
    rank_ci95: tuple[int, int]
    folder: str
    model: str
    headline: str
    nrp_error: float
    ci95: Interval
    regions: dict[str, RegionError]


@dataclass(frozen=True)
class ComparedPair:
    """The NRP-error of one run less that of another, paired by image and site.

    Attributes:
        first, second: their folders; the first has the lesser error.
        difference: of the means over regions; negative where the first errs less.
        ci95: its 95 % interval, as if there were no other pair.
        ci95_simultaneous: the interval of a family of pairs: all of them hold at once with 95 %, by the
            largest deviation of any pair in each resample. It is the one to judge by.
        p: two-sided, by the bootstrap; never below 1 / 1000, which 2000 resamples can show.
        p_holm: p corrected for the number of pairs (Holm 1979); it cannot fall below the number of
            pairs / 1000.
        wins: at how many sites of ``n_sites`` the first errs less.
        regions: the same for each region.
    """

    first: str
    second: str
    difference: float
    ci95: Interval
    wins: int
    n_sites: int
    regions: dict[str, PairedDifference]
    ci95_simultaneous: Interval
    p: float
    p_holm: float


@dataclass(frozen=True)
class Comparison:
    """Runs on the same recordings, from the least NRP-error up, and every two of them."""

    recordings: ComparedRecordings
    units: str
    n_images: int
    seed: int
    runs: list[ComparedRun]
    pairs: list[ComparedPair]

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        content: dict[str, Any] = msgspec.to_builtins(self)
        return content


def compare_runs(runs: Sequence[FinishedRun], seed: int = 0) -> Comparison:
    """Compare the NRP-errors of runs, image by image and site by site.

    One bootstrap over images, seeds and sites serves all runs: each resample gives every run an
    NRP-error (the mean over regions), so every difference and every rank has an interval.

    Args:
        runs: two or more, on the same recordings.
        seed: of the bootstrap.

    Raises:
        OptionError: if there are fewer than two runs, or one comes twice.
        RunError: if a run cannot be read, or the runs do not belong together.
    """
    if len({run.folder.resolve() for run in runs}) < max(2, len(runs)):
        raise OptionError(
            "this is nothing to compare",
            where="RUNS",
            expected="two or more folders of runs, each once",
            found=", ".join(str(run.folder) for run in runs),
        )
    scored = [_Scored.of(run, seed) for run in runs]
    for other in scored[1:]:
        _check_alike(scored[0].run, other.run)
    scored.sort(key=lambda one: one.value)
    resampled = np.stack([one.means for one in scored])
    # Resamples without a recorded value rank nothing.
    resampled = resampled[:, ~np.isnan(resampled).any(axis=0)]
    # Ranks in every resample; runs that are equal share the better rank.
    ranks = 1 + (resampled[None] < resampled[:, None]).sum(axis=1)
    first = scored[0].run
    facts = first.result.recordings
    return Comparison(
        recordings=ComparedRecordings(facts.name, facts.simulated, facts.fingerprint),
        units=first.units,
        n_images=len(first.stimulus_ids),
        seed=seed,
        runs=[
            one.among(1 + sum(other.value < one.value for other in scored), of)
            for one, of in zip(scored, ranks, strict=True)
        ],
        pairs=_pairs(list(combinations(scored, 2))),
    )


def nrp_error_interval(run: FinishedRun, seed: int = 0) -> Interval:
    """The 95 % interval of a run's NRP-error, the mean over regions.

    Raises:
        RunError: if the run cannot be read.
    """
    return percentile_interval(_Scored.of(run, seed).means)


def paired_difference(run: FinishedRun, other: FinishedRun, seed: int = 0) -> ComparedPair:
    """A run's NRP-error less that of another, as in ``pairs`` of `compare_runs`.

    Raises:
        RunError: if a run cannot be read, or the two do not belong together.
    """
    _check_alike(run, other)
    (pair,) = _pairs([(_Scored.of(run, seed), _Scored.of(other, seed))])
    return pair


@dataclass(frozen=True, eq=False)
class _Scored:
    """A run with its NRP-error and that of each region: the value, and what it is in each resample.

    Attributes:
        squares: the mean squared error of each region in each resample.
    """

    run: FinishedRun
    value: float
    means: np.ndarray
    regions: dict[str, tuple[float, np.ndarray]]
    squares: dict[str, np.ndarray]

    @classmethod
    def of(cls, run: FinishedRun, seed: int) -> "_Scored":
        regions = {
            name: (mean_absolute_error(run.errors_of(name)), run.resampled(name, seed))
            for name in run.region_names
        }
        return cls(
            run,
            float(np.mean([value for value, _ in regions.values()])),
            np.mean([means for _, means in regions.values()], axis=0),
            regions,
            {name: run.resampled(name, seed, power=2) for name in run.region_names},
        )

    def among(self, rank: int, ranks: np.ndarray) -> ComparedRun:
        low, high = np.quantile(ranks, [0.025, 0.975], method="inverted_cdf")
        return ComparedRun(
            rank=rank,
            rank_ci95=(int(low), int(high)),
            folder=str(self.run.folder),
            model=self.run.result.model.file,
            headline=self.run.headline,
            nrp_error=self.value,
            ci95=percentile_interval(self.means),
            regions={
                name: RegionError(value, percentile_interval(means))
                for name, (value, means) in self.regions.items()
            },
        )


def _pairs(pairs: Sequence[tuple[_Scored, _Scored]]) -> list[ComparedPair]:
    """The differences of pairs, which are one family."""
    resampled = np.stack([first.means - second.means for first, second in pairs])
    resampled = resampled[:, ~np.isnan(resampled).any(axis=0)]
    simultaneous = simultaneous_intervals(
        [first.value - second.value for first, second in pairs], resampled
    )
    p = [bootstrap_p(one) for one in resampled]
    return [
        _pair(*pair, interval, alone, corrected)
        for pair, interval, alone, corrected in zip(pairs, simultaneous, p, holm(p), strict=True)
    ]


def _pair(
    first: _Scored, second: _Scored, simultaneous: Interval, p: float, p_holm: float
) -> ComparedPair:
    regions = {}
    for name in first.run.region_names:
        errors, other = first.run.errors_of(name), second.run.errors_of(name)
        regions[name] = compare_errors(
            errors,
            other,
            first.regions[name][1] - second.regions[name][1],
            first.squares[name] - second.squares[name],
            site_tests(errors, other).counts,
        )
    return ComparedPair(
        first=str(first.run.folder),
        second=str(second.run.folder),
        difference=first.value - second.value,
        ci95=percentile_interval(first.means - second.means),
        wins=sum(region.wins for region in regions.values()),
        n_sites=sum(region.n_sites for region in regions.values()),
        regions=regions,
        ci95_simultaneous=simultaneous,
        p=p,
        p_holm=p_holm,
    )


_ALIKE: dict[str, Callable[[FinishedRun], object]] = {
    "recordings": lambda run: run.result.recordings.fingerprint,
    "sites": lambda run: run.site_ids,
    "normalisation": lambda run: run.result.protocol.normalise,
    "held-out images": lambda run: run.stimulus_ids,
    "algorithm version": lambda run: run.result.algorithm_version,
}


def _check_alike(run: FinishedRun, other: FinishedRun) -> None:
    for name, fact in _ALIKE.items():
        here, there = fact(run), fact(other)
        if here != there:
            raise RunError(
                f"the runs do not have the same {name}",
                where=f"{run.folder} and {other.folder}",
                expected=f"{name} alike in both",
                found=f"{_short(here)} and {_short(there)}",
                fix="Score the older one again with --overwrite."
                if name == "algorithm version"
                else "Score both models with the same --recordings, --region, --normalise and "
                "--protocol.",
            )


def _short(fact: object) -> str:
    return f"{len(fact)} of them" if isinstance(fact, tuple) else str(fact)[:12]
