"""What runs, predictors and scores are called where people read them."""

from pathlib import Path

from nrp_onnx.scoring.result import PredictorScore, RegionScore
from nrp_onnx.scoring.run import FinishedRun

_NAMES = {
    "mean": "mean response",
    "ols": "least squares",
    "ridge": "ridge",
    "pls": "PLS-25",
    "kernel": "kernel ridge",
    "nrp": "NRP head",
}


def best_baseline(predictors: dict[str, PredictorScore]) -> str | None:
    """The baseline of least error, the mean response aside; None if there is no other."""
    errors = {
        name: numbers.mae for name, numbers in predictors.items() if name not in ("nrp", "mean")
    }
    return min(errors, key=lambda name: errors[name], default=None)


def predictor_name(key: str) -> str:
    """The name in words of a key of ``regions.<R>.predictors``; an unknown key is its own name."""
    return _NAMES.get(key, key)


_LONGEST_UNITS = 20


def model_name(run: FinishedRun) -> str:
    """The name of the model's file, without its ending."""
    return Path(run.result.model.file).stem


def error_units(run: FinishedRun) -> str:
    """Of the errors; units that would fill a line are only said to be the recorded ones."""
    units = run.result.units
    if units == "z":
        return "standard deviations"
    return units if units != "unknown" and len(units) <= _LONGEST_UNITS else "recorded units"


def is_simulated(run: FinishedRun) -> bool:
    """Whether the recordings come from a model rather than from a brain."""
    return run.result.recordings.simulated


def region_sentences(run: FinishedRun, region: str) -> list[str]:
    """The score of a region beside what it is to be measured by."""
    found = run.regions[region]
    score, (low, high) = found.nrp_error.value, found.nrp_error.ci95
    mean, floor = found.predictors["mean"].mae, found.noise_floor
    sites = "site" if found.n_sites == 1 else "sites"
    sentences = [
        f"At {found.n_sites} {region} {sites}, the rates that are predicted from "
        f"{model_name(run)} for images held out miss the measured ones by {score:.3f} {error_units(run)} on "
        f"average (95 % interval {low:.3f} to {high:.3f})."
    ]
    if floor is None:
        sentences.append(
            f"Always giving a site's mean would miss by {mean:.3f}. How much of the error is noise of "
            f"the recording is not known: {found.noise_floor_reason}."
        )
    else:
        sentences.append(
            f"Always giving a site's mean would miss by {mean:.3f}; a predictor that knows the "
            f"true rates, because of the noise of the recording, by {floor:.3f}."
        )
        if mean > floor:
            share = (mean - score) / (mean - floor)
            sentences.append(
                f"Of what lies between the two, {100 * share:.0f} % is predicted."
                if share > 0
                else "Of what lies between the two, nothing is predicted."
            )
    sentences.append(_against_the_best(found))
    return [sentence for sentence in sentences if sentence]


def overall_sentence(run: FinishedRun) -> str:
    """The NRP-error over all regions."""
    names = list(run.regions)
    error = f"{run.result.nrp_error:.3f} {error_units(run)}"
    if len(names) == 1:
        return f"NRP-error {error}."
    return f"NRP-error {error}, the mean over {', '.join(names[:-1])} and {names[-1]}."


def _against_the_best(found: RegionScore) -> str:
    """The head beside the best baseline; with a claim only where they were compared in pairs."""
    best = best_baseline(found.predictors)
    if best is None:
        return ""
    error = found.predictors[best].mae
    words = f"{predictor_name(best)}, the best baseline on the same activations ({error:.3f})"
    paired = found.comparisons.get(best)
    if paired is None:
        side = "lower" if found.nrp_error.value < error else "no lower"
        return f"The NRP head's error is {side} than that of {words}."
    low, high = paired.ci95
    wins = f", and errs less at {paired.wins} of {paired.n_sites} sites"
    if high < 0:
        return f"The NRP head does better than {words}{wins}."
    if low > 0:
        return f"The NRP head does worse than {words}{wins}."
    return f"The NRP head is not shown to differ from {words}: the interval of their difference holds 0."
