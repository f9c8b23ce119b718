"""The figure of several runs side by side, and what keeps them from being compared."""

from nrp_onnx.report.scored_run import ScoredRun
from nrp_onnx.report.style import BASELINE, FLOOR, HEAD, NamedFigure, panel

_LONGEST_NAME = 24


def comparison_figures(runs: list[ScoredRun]) -> list[NamedFigure]:
    """For each region the NRP-error of every run, lowest first, beside its best baseline."""
    regions = dict.fromkeys(region for run in runs for region in run.result["regions"])
    return [_of_region(runs, region) for region in regions]


def differences_of_protocol(runs: list[ScoredRun]) -> list[str]:
    """What the runs differ in that their errors depend on beside the model; empty if nothing."""
    kept = {
        "recordings": [run.result["recordings"]["fingerprint"] for run in runs],
        "units": [run.result["units"] for run in runs],
        "split": [_split(run) for run in runs],
        "search": [run.result["search"]["preset"] for run in runs],
    }
    return [name for name, values in kept.items() if any(value != values[0] for value in values)]


def _split(run: ScoredRun) -> tuple[object, ...]:
    protocol = run.result["protocol"]
    return tuple(protocol[key] for key in ("name", "folds", "stratified_on", "seed"))


def _of_region(runs: list[ScoredRun], region: str) -> NamedFigure:
    with_region = [run for run in runs if region in run.result["regions"]]
    ordered = sorted(
        with_region, key=lambda run: float(run.result["regions"][region]["nrp_error"]["value"])
    )
    several = len({run.result["recordings"]["name"] for run in runs}) > 1
    simulated = any(run.simulated for run in with_region)
    with panel(1.2 + 0.34 * len(ordered), simulated=simulated) as axes:
        for row, run in enumerate(ordered):
            found = run.result["regions"][region]
            baselines = [
                numbers["mae"]
                for name, numbers in found["predictors"].items()
                if name not in ("nrp", "mean")
            ]
            error = found["nrp_error"]
            axes.plot(error["ci95"], [row, row], color=HEAD, linewidth=2.2, solid_capstyle="round")
            axes.plot(error["value"], row, "o", color=HEAD, markersize=6)
            if baselines:
                axes.plot(min(baselines), row, "D", color=BASELINE, markersize=5, fillstyle="none")
            if found["noise_floor"] is not None:
                axes.plot(found["noise_floor"], row, "|", color=FLOOR, markersize=13, markeredgewidth=2)
        axes.plot([], [], "o-", color=HEAD, label="NRP head")
        axes.plot([], [], "D", color=BASELINE, fillstyle="none", markersize=5, label="best baseline")
        axes.plot([], [], "|", color=FLOOR, markersize=9, markeredgewidth=2, label="noise floor")
        axes.legend(
            loc="lower left", bbox_to_anchor=(0, 1), ncols=3, borderaxespad=0, handlelength=1.2,
            columnspacing=1.2,
        )  # fmt: skip
        axes.set_yticks(range(len(ordered)), [_label(run, several) for run in ordered])
        axes.set_ylim(len(ordered) - 0.4, -0.6)
        axes.grid(visible=False, axis="y")
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        axes.locator_params(axis="x", nbins=5)
        units = ", ".join(dict.fromkeys(run.units for run in with_region))
        axes.set_xlabel(f"{region}: mean absolute error ({units})")
    return NamedFigure(
        f"comparison-{region}",
        f"NRP-error of each run in {region} with its 95 % interval, the best of its baselines, and "
        "the noise floor. Further left is better.",
        axes.figure,  # type: ignore[arg-type]
    )


def _label(run: ScoredRun, with_recordings: bool) -> str:
    name = run.model_name
    if len(name) > _LONGEST_NAME:
        name = f"{name[: _LONGEST_NAME - 1]}…"
    return f"{name}\n{run.result['recordings']['name']}" if with_recordings else name
