"""Several runs side by side: the figure, the tables, the leaderboard in CSV."""

import csv
from pathlib import Path

from rich.table import Table

from nrp_onnx.files import whole_file
from nrp_onnx.report.style import BASELINE, FLOOR, HEAD, NamedFigure, panel, set_title
from nrp_onnx.report.terminal import difference_with_interval
from nrp_onnx.report.words import (
    best_baseline,
    error_units,
    is_simulated,
    model_name,
    predictor_name,
)
from nrp_onnx.scoring.comparison import Comparison
from nrp_onnx.scoring.run import FinishedRun
from nrp_onnx.statistics import Interval

_LONGEST_NAME = 24


def comparison_figures(runs: list[FinishedRun]) -> list[NamedFigure]:
    """For each region the NRP-error of every run, lowest first, beside its best baseline."""
    regions = dict.fromkeys(region for run in runs for region in run.regions)
    return [_of_region(runs, region) for region in regions]


def differences_of_protocol(runs: list[FinishedRun]) -> list[str]:
    """What the runs differ in that their errors depend on beside the model; empty if nothing."""
    kept: dict[str, list[object]] = {
        "recordings": [run.result.recordings.fingerprint for run in runs],
        "units": [run.result.units for run in runs],
        "split": [_split(run) for run in runs],
        "search": [run.result.search.preset for run in runs],
    }
    return [name for name, values in kept.items() if any(value != values[0] for value in values)]


def _split(run: FinishedRun) -> tuple[object, ...]:
    protocol = run.result.protocol
    split = protocol.split and protocol.split.name
    return protocol.name, split, protocol.folds, protocol.stratified_on, protocol.seed


def _of_region(runs: list[FinishedRun], region: str) -> NamedFigure:
    with_region = [run for run in runs if region in run.regions]
    ordered = sorted(with_region, key=lambda run: float(run.regions[region].nrp_error.value))
    alike = len({model_name(run) for run in ordered}) < len(ordered)
    simulated = any(is_simulated(run) for run in with_region)
    with panel(1.2 + 0.34 * len(ordered), simulated=simulated) as axes:
        for row, run in enumerate(ordered):
            found = run.regions[region]
            best = best_baseline(found.predictors, run.headline)
            error = found.nrp_error
            axes.plot(error.ci95, [row, row], color=HEAD, linewidth=2.2, solid_capstyle="round")
            axes.plot(error.value, row, "o", color=HEAD, markersize=6)
            if best is not None:
                axes.plot(
                    found.predictors[best].mae,
                    row,
                    "D",
                    color=BASELINE,
                    markersize=5,
                    fillstyle="none",
                )
            if found.noise_floor is not None:
                axes.plot(
                    found.noise_floor, row, "|", color=FLOOR, markersize=13, markeredgewidth=2
                )
        axes.plot([], [], "o-", color=HEAD, label="NRP-error")
        axes.plot(
            [], [], "D", color=BASELINE, fillstyle="none", markersize=5, label="best baseline"
        )
        axes.plot([], [], "|", color=FLOOR, markersize=9, markeredgewidth=2, label="noise floor")
        axes.legend(
            loc="lower right", bbox_to_anchor=(1, 1), ncols=3, borderaxespad=0, handlelength=1.2,
            columnspacing=1.2,
        )  # fmt: skip
        axes.set_yticks(range(len(ordered)), [_label(run, alike) for run in ordered])
        axes.set_ylim(len(ordered) - 0.4, -0.6)
        axes.grid(visible=False, axis="y")
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        axes.locator_params(axis="x", nbins=5)
        units = {error_units(run) for run in with_region}
        words = units.pop() if len(units) == 1 else "units of each run"
        axes.set_xlabel(f"mean absolute error ({words})")
        set_title(axes, region)
    return NamedFigure(
        f"comparison-{region}",
        f"NRP-error of each run in {region} with its 95 % interval, the best of its baselines, and "
        "the noise floor. Further left is better.",
        axes.figure,  # type: ignore[arg-type]
    )


def _label(run: FinishedRun, with_folder: bool) -> str:
    """The model, and where two runs have the same one also the folder."""
    names = [model_name(run), *([run.folder.name] if with_folder else [])]
    return "\n".join(
        name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 1]}…" for name in names
    )


def leaderboard_table(comparison: Comparison) -> Table:
    """The runs from the least NRP-error up; SIMULATED where the recordings are."""
    table = Table(
        title=_title(comparison),
        caption=f"NRP-error in {comparison.units}, {comparison.n_images} held-out images; "
        "[95 % interval] as protocol.interval of the runs says",
    )
    table.add_column("rank", justify="right")
    table.add_column("run")
    table.add_column("model")
    table.add_column("predictor")
    for heading in ("NRP-error", *comparison.runs[0].regions):
        table.add_column(heading, justify="right")
    for run in comparison.runs:
        low, high = run.rank_ci95
        table.add_row(
            f"{run.rank} [{low}, {high}]",
            run.folder,
            run.model,
            predictor_name(run.headline),
            _with_interval(run.nrp_error, run.ci95),
            *(_with_interval(found.value, found.ci95) for found in run.regions.values()),
        )
    return table


def pairs_table(comparison: Comparison) -> Table:
    """The paired difference of every two runs, and at how many sites the first errs less."""
    n = len(comparison.pairs)
    table = Table(
        title="Paired differences of the NRP-error, first less second",
        caption="[95 % interval] of each pair alone; all at once: intervals that hold for "
        f"{'the pair' if n == 1 else f'all {n} pairs together'}, by which to judge; p by Holm",
    )
    for heading in ("first", "second"):
        table.add_column(heading)
    for heading in ("difference", "all at once", "p", "better at"):
        table.add_column(heading, justify="right")
    for pair in comparison.pairs:
        table.add_row(
            pair.first,
            pair.second,
            difference_with_interval(pair.difference, pair.ci95),
            "[{:+.3f}, {:+.3f}]".format(*pair.ci95_simultaneous),
            f"{pair.p_holm:.3f}",
            f"{pair.wins} of {pair.n_sites} sites",
        )
    return table


def write_leaderboard(path: Path, comparison: Comparison) -> None:
    """Write a CSV file with one row a run, from the least NRP-error up."""
    regions = list(comparison.runs[0].regions)
    columns = ["rank", "rank_low", "rank_high", "run", "model", "nrp_error", "low", "high"]
    for region in regions:
        columns += [f"{region}_nrp_error", f"{region}_low", f"{region}_high"]
    columns += ["predictor", "units", "recordings", "simulated"]
    about = comparison.recordings
    with whole_file(path) as part, part.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        for run in comparison.runs:
            row = [run.rank, *run.rank_ci95, run.folder, run.model]
            row += [run.nrp_error, *run.ci95]
            for region in regions:
                row += [run.regions[region].value, *run.regions[region].ci95]
            writer.writerow([*row, run.headline, comparison.units, about.name, about.simulated])


def _title(comparison: Comparison) -> str:
    about = comparison.recordings
    return f"Runs on {about.name}" + ("  SIMULATED" if about.simulated else "")


def _with_interval(value: float, interval: Interval) -> str:
    return f"{value:.3f} [{interval[0]:.3f}, {interval[1]:.3f}]"
