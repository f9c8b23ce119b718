"""The figure of several runs side by side, and what keeps them from being compared."""

from nrp_onnx.report.predictor_names import best_baseline
from nrp_onnx.report.run_words import error_units, is_simulated, model_name
from nrp_onnx.report.style import BASELINE, FLOOR, HEAD, NamedFigure, panel, set_title
from nrp_onnx.scoring.finished_run import FinishedRun

_LONGEST_NAME = 24


def comparison_figures(runs: list[FinishedRun]) -> list[NamedFigure]:
    """For each region the NRP-error of every run, lowest first, beside its best baseline."""
    regions = dict.fromkeys(region for run in runs for region in run.result["regions"])
    return [_of_region(runs, region) for region in regions]


def differences_of_protocol(runs: list[FinishedRun]) -> list[str]:
    """What the runs differ in that their errors depend on beside the model; empty if nothing."""
    kept = {
        "recordings": [run.result["recordings"]["fingerprint"] for run in runs],
        "units": [run.result["units"] for run in runs],
        "split": [_split(run) for run in runs],
        "search": [run.result["search"]["preset"] for run in runs],
    }
    return [name for name, values in kept.items() if any(value != values[0] for value in values)]


def _split(run: FinishedRun) -> tuple[object, ...]:
    protocol = run.result["protocol"]
    return tuple(protocol[key] for key in ("name", "folds", "stratified_on", "seed"))


def _of_region(runs: list[FinishedRun], region: str) -> NamedFigure:
    with_region = [run for run in runs if region in run.result["regions"]]
    ordered = sorted(
        with_region, key=lambda run: float(run.result["regions"][region]["nrp_error"]["value"])
    )
    alike = len({model_name(run) for run in ordered}) < len(ordered)
    simulated = any(is_simulated(run) for run in with_region)
    with panel(1.2 + 0.34 * len(ordered), simulated=simulated) as axes:
        for row, run in enumerate(ordered):
            found = run.result["regions"][region]
            best = best_baseline(found["predictors"])
            error = found["nrp_error"]
            axes.plot(error["ci95"], [row, row], color=HEAD, linewidth=2.2, solid_capstyle="round")
            axes.plot(error["value"], row, "o", color=HEAD, markersize=6)
            if best is not None:
                axes.plot(
                    found["predictors"][best]["mae"],
                    row,
                    "D",
                    color=BASELINE,
                    markersize=5,
                    fillstyle="none",
                )
            if found["noise_floor"] is not None:
                axes.plot(
                    found["noise_floor"], row, "|", color=FLOOR, markersize=13, markeredgewidth=2
                )
        axes.plot([], [], "o-", color=HEAD, label="NRP head")
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
