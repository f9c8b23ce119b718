"""What runs, predictors and scores are called where people read them."""

import textwrap
from collections.abc import Mapping
from pathlib import Path

from nrp_onnx.scoring.result import PredictorScore, RegionScore
from nrp_onnx.scoring.run import FinishedRun

_NAMES = {
    "mean": "mean response",
    "ols": "least squares",
    "ridge": "ridge",
    "pls": "PLS-25",
    "kernel": "kernel ridge",
    "masked_ridge": "masked ridge",
    "masked_kernel": "masked kernel ridge",
    "nrp": "NRP network",
}
#: The end of the name of a predictor that is calibrated, and what is between the parts of a mixture.
_CALIBRATED, _AND = "_calibrated", "+"

#: What a share of the explainable error must not be taken for.
NOT_BETWEEN_RECORDINGS = (
    "it depends on the noise of the sites and is not to be compared between recordings"
)


def uncalibrated(key: str) -> str:
    """The predictor that a calibrated one was made from; any other is its own."""
    return key.removesuffix(_CALIBRATED)


def calibrated(key: str) -> str:
    """The key of the predictor calibrated."""
    return uncalibrated(key) + _CALIBRATED


def base_predictors(predictors: Mapping[str, PredictorScore]) -> dict[str, PredictorScore]:
    """The predictors that stand on rows of their own: without those that are another, calibrated."""
    return {
        name: numbers
        for name, numbers in predictors.items()
        if name == uncalibrated(name) or uncalibrated(name) not in predictors
    }


def of_calibrated(predictors: Mapping[str, PredictorScore], base: str) -> PredictorScore | None:
    """The numbers of a base predictor calibrated; None where there are none, or it is calibrated."""
    return predictors.get(calibrated(base)) if base != calibrated(base) else None


def best_baseline(predictors: Mapping[str, PredictorScore], headline: str) -> str | None:
    """The baseline of least error; None if there is no other.

    The mean response is none, nor is what shares the NRP network or its base with the headline.

    Args:
        headline: the predictor whose error is the NRP-error.
    """
    others = {
        name: numbers.mae
        for name, numbers in predictors.items()
        if not {"nrp", "mean"} & set(uncalibrated(name).split(_AND))
        and uncalibrated(name) != uncalibrated(headline)
    }
    return min(others, key=lambda name: others[name], default=None)


def predictor_name(key: str) -> str:
    """The name in words of a key of ``regions.<R>.predictors``; an unknown key is its own name.

    >>> predictor_name("nrp+masked_ridge_calibrated")
    'NRP + masked ridge, calibrated'
    """
    base = uncalibrated(key)
    parts = base.split(_AND)
    if len(parts) == 1:
        name = _NAMES.get(base, base)
    else:
        name = " + ".join("NRP" if part == "nrp" else _NAMES.get(part, part) for part in parts)
    return name if base == key else f"{name}, calibrated"


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
                f"Of what lies between the two, {100 * share:.0f} % is predicted "
                f"({NOT_BETWEEN_RECORDINGS})."
                if share > 0
                else "Of what lies between the two, nothing is predicted."
            )
    sentences.append(_against_the_best(found, run.headline))
    return [sentence for sentence in sentences if sentence]


def overall_sentence(run: FinishedRun) -> str:
    """The NRP-error over all regions, and whose it is."""
    names = list(run.regions)
    whose = f"that of the predictor {predictor_name(run.headline)}"
    error = f"{run.result.nrp_error:.3f} {error_units(run)}"
    if len(names) == 1:
        return f"NRP-error {error}, {whose}."
    return f"NRP-error {error}, {whose}; the mean over {', '.join(names[:-1])} and {names[-1]}."


def _against_the_best(found: RegionScore, headline: str) -> str:
    """The headline beside the best baseline; with a claim only where they were compared in pairs."""
    best = best_baseline(found.predictors, headline)
    if best is None:
        return ""
    error, own = found.predictors[best].mae, f"The predictor {predictor_name(headline)}"
    words = f"{predictor_name(best)}, the best baseline on the same activations ({error:.3f})"
    paired = found.comparisons.get(best)
    if paired is None:
        side = "a lower error" if found.nrp_error.value < error else "no lower error"
        return f"{own} has {side} than {words}."
    low, high = paired.ci95
    wins = f", and errs less at {paired.wins} of {paired.n_sites} sites"
    counts = paired.significant_sites
    if counts is not None:
        wins += (
            f" (at {counts.better} of them by a test of the site alone, and more at {counts.worse}; "
            "false discovery rate 5 %)"
        )
    if high < 0:
        return f"{own} does better than {words}{wins}."
    if low > 0:
        return f"{own} does worse than {words}{wins}."
    return f"{own} is not shown to differ from {words}: the interval of their difference holds 0."


#: Characters of a line of an axis' label: more would run out of a figure of half a page.
_LABEL = 34


def wrapped(label: str) -> str:
    """The label of an axis on as many lines as it needs."""
    return textwrap.fill(label, _LABEL)
