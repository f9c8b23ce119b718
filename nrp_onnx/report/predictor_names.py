"""What the predictors of a result are called where people read them, and which baseline is best."""

from typing import Any

_NAMES = {
    "mean": "mean response",
    "ols": "least squares",
    "ridge": "ridge",
    "pls": "PLS-25",
    "kernel": "kernel ridge",
    "nrp": "NRP head",
}


def best_baseline(predictors: dict[str, Any]) -> str | None:
    """The baseline of least error, the mean response aside; None if there is no other."""
    errors = {
        name: numbers["mae"] for name, numbers in predictors.items() if name not in ("nrp", "mean")
    }
    return min(errors, key=lambda name: errors[name], default=None)


def predictor_name(key: str) -> str:
    """The name in words of a key of ``regions.<R>.predictors``; an unknown key is its own name."""
    return _NAMES.get(key, key)
