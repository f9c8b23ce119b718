"""What a run is called, and its units, in few words."""

from pathlib import Path

from nrp_onnx.scoring.finished_run import FinishedRun

_LONGEST_UNITS = 20


def model_name(run: FinishedRun) -> str:
    """The name of the model's file, without its ending."""
    return Path(run.result["model"]["file"]).stem


def error_units(run: FinishedRun) -> str:
    """Of the errors; units that would fill a line are only said to be the recorded ones."""
    units: str = run.result["units"]
    if units == "z":
        return "standard deviations"
    return units if units != "unknown" and len(units) <= _LONGEST_UNITS else "recorded units"


def is_simulated(run: FinishedRun) -> bool:
    """Whether the recordings come from a model rather than from a brain."""
    return bool(run.result["recordings"]["simulated"])
