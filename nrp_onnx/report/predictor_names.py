"""What the predictors of a result are called where people read them."""

_NAMES = {
    "mean": "mean response",
    "ols": "least squares",
    "ridge": "ridge",
    "pls": "PLS-25",
    "kernel": "kernel ridge",
    "nrp": "NRP head",
}


def predictor_name(key: str) -> str:
    """The name in words of a key of ``regions.<R>.predictors``; an unknown key is its own name."""
    return _NAMES.get(key, key)
