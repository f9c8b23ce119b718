"""Which time bins of an assembly the responses are averaged over."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nrp_onnx.errors import OptionError, RecordingsError
from nrp_onnx.recordings.netcdf import Variable

DIM, START, END = "time_bin", "time_bin_start", "time_bin_end"
#: Times that were summed up from steps, such as 70.00000000000001, are not outside.
_ROUNDING_MS = 1e-6


@dataclass(frozen=True)
class TimeBins:
    """The bins that are averaged, and the time that they span.

    Attributes:
        places: along the dimension time_bin; None where the assembly has no such dimension.
        window_ms: from the start of the first to the end of the last; None if the file is silent.
        equal: whether all are equally long.
    """

    places: np.ndarray | None
    window_ms: tuple[float, float] | None
    equal: bool = True


def choose_bins(
    path: Path,
    variables: dict[str, Variable],
    n_bins: int | None,
    window: tuple[float, float] | None,
) -> TimeBins:
    """The bins within a window, or the only one.

    Args:
        n_bins: the length of the dimension time_bin; None without one.
        window: start and end in ms after stimulus onset; None for the only bin.

    Raises:
        OptionError: if the window is needed, is empty, or holds no bin.
        RecordingsError: if there are several bins without times.
    """
    edges = _edges(variables, n_bins)
    if window is not None and not window[0] < window[1]:
        raise OptionError(
            "the window is empty",
            where="--window",
            expected="two rising numbers, in ms",
            found=f"{window[0]:g} {window[1]:g}",
        )
    if n_bins is None or (edges is None and n_bins == 1):
        if window is not None:
            raise OptionError(
                "the assembly does not say when its responses were recorded",
                where=path,
                expected=f"{START} and {END}, or no --window",
                found=", ".join(variables),
                fix="Leave out --window.",
            )
        return TimeBins(None if n_bins is None else np.arange(1), None)
    if edges is None:
        raise RecordingsError(
            f"the assembly has {n_bins} time bins without times",
            where=path,
            expected=f"variables {START} and {END} of the dimension {DIM}",
            found=", ".join(variables),
        )
    start, end = edges
    if window is None:
        if n_bins > 1:
            raise OptionError(
                f"the assembly has {n_bins} time bins",
                where=path,
                expected="a window to average over",
                found=_listed(start, end),
                fix=f"Name one, as --window {start.min():g} {end.max():g}.",
            )
        places = np.arange(1)
    else:
        places = np.flatnonzero(
            (start >= window[0] - _ROUNDING_MS) & (end <= window[1] + _ROUNDING_MS)
        )
    if not len(places):
        raise OptionError(
            "no time bin lies within the window",
            where=path,
            expected="a window that holds a bin or more",
            found=f"--window {window[0]:g} {window[1]:g} for {_listed(start, end)}"
            if window
            else "no bin",
        )
    start, end = start[places], end[places]
    return TimeBins(
        places,
        (float(start.min()), float(end.max())),
        equal=bool(np.allclose(end - start, end[0] - start[0])),
    )


def _edges(
    variables: dict[str, Variable], n_bins: int | None
) -> tuple[np.ndarray, np.ndarray] | None:
    found = [variables.get(name) for name in (START, END)]
    if n_bins is None or any(
        edge is None or not edge.is_numeric or edge.data.shape != (n_bins,) for edge in found
    ):
        return None
    start, end = (edge.numbers() for edge in found if edge is not None)
    return start, end


def _listed(start: np.ndarray, end: np.ndarray) -> str:
    """The first four bins and the last."""
    texts = [f"{a:g} to {b:g}" for a, b in zip(start, end, strict=True)]
    if len(texts) > 5:
        texts = [*texts[:4], "...", texts[-1]]
    return ", ".join(texts) + " ms"
