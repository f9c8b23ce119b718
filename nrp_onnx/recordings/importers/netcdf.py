"""Variables and time bins of a netCDF-4 file, read with h5py alone."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from nrp_onnx.errors import OptionError, RecordingsError
from nrp_onnx.recordings.importers.hdf5 import child, open_hdf5

if TYPE_CHECKING:
    import h5py

#: How the netCDF library begins the NAME of a dimension that has no numbers of its own.
_NO_VARIABLE = b"This is a netCDF dimension but not a netCDF variable"
_UNKNOWN = "?"


@dataclass(frozen=True)
class Variable:
    """A data set of the file and the names of its dimensions, in the file's order.

    Fixed-length text has one dimension more in the file, its characters, which is left out here.
    """

    name: str
    dims: tuple[str, ...]
    data: "h5py.Dataset"

    @property
    def is_numeric(self) -> bool:
        return self.data.dtype.kind in "iuf"

    def texts(self) -> tuple[str, ...]:
        """The values of one axis as texts, whatever they are stored as."""
        values = self.data[...]
        if values.dtype.kind == "S" and values.ndim == 2:
            values = values.view(f"S{values.shape[1]}")[:, 0]
        return tuple(_text(value) for value in values.ravel().tolist())

    def numbers(self) -> np.ndarray:
        """The values as float64."""
        return np.asarray(self.data[...], np.float64)


@contextmanager
def open_netcdf(path: Path) -> Iterator[dict[str, Variable]]:
    """Open a netCDF-4 file.

    Yields:
        The variables of the root group by name, without dimensions that have no numbers.

    Raises:
        RecordingsError: if it is no whole netCDF-4 file, also while the block reads from it.
        OptionError: if h5py is not installed.
    """
    if not path.is_file():
        raise RecordingsError("no such file", where=path, expected="a netCDF-4 file")
    with path.open("rb") as start:
        classic = start.read(3) == b"CDF"
    if classic:
        raise RecordingsError(
            "this is netCDF of the classic kind",
            where=path,
            expected="netCDF-4 (HDF5)",
            found="netCDF-3",
            fix="Convert it with: nccopy -k nc4 OLD.nc NEW.nc",
        )
    with open_hdf5(path, "netCDF-4 (HDF5) file") as file:
        try:
            variables = _variables(file, path)
        except (KeyError, ValueError) as error:  # a damaged object inside
            raise RuntimeError(error) from None
        yield variables


def _variables(file: "h5py.File", path: Path) -> dict[str, Variable]:
    # Groups and types have no axes.
    items = {name: child(file, name, path) for name in file}
    datasets = {name: item for name, item in items.items() if hasattr(item, "ndim")}
    lengths = {
        name: len(data) for name, data in datasets.items() if _is_scale(data) and data.ndim == 1
    }
    numbered = {
        int(data.attrs["_Netcdf4Dimid"]): name
        for name, data in datasets.items()
        if _is_scale(data) and np.size(data.attrs.get("_Netcdf4Dimid", ())) == 1
    }
    variables = {}
    for name, data in datasets.items():
        if bytes(np.bytes_(data.attrs.get("NAME", b""))).startswith(_NO_VARIABLE):
            continue
        dims = _dims(name, data, lengths, numbered)
        if data.dtype.kind == "S" and data.dtype.itemsize == 1 and data.ndim == 2:
            dims = dims[:1]
        variables[name] = Variable(name, dims, data)
    return variables


def _dims(
    name: str, data: "h5py.Dataset", lengths: dict[str, int], numbered: dict[int, str]
) -> tuple[str, ...]:
    """Names of the axes: of the scales attached, else by number, else by a length had once only."""
    if _is_scale(data) and data.ndim == 1:
        return (name,)
    if "DIMENSION_LIST" in data.attrs:
        scales = [next(iter(axis.values()), None) for axis in data.dims]
        names = [scale.name.rsplit("/", 1)[-1] for scale in scales if scale is not None]
        if len(names) == data.ndim:
            return tuple(names)
    numbers = np.atleast_1d(data.attrs.get("_Netcdf4Coordinates", ()))
    if len(numbers) == data.ndim and all(int(number) in numbered for number in numbers):
        return tuple(numbered[int(number)] for number in numbers)
    by_length = [
        [scale for scale, length in lengths.items() if length == size] for size in data.shape
    ]
    return tuple(found[0] if len(found) == 1 else _UNKNOWN for found in by_length)


def _is_scale(data: "h5py.Dataset") -> bool:
    return bytes(np.bytes_(data.attrs.get("CLASS", b""))) == b"DIMENSION_SCALE"


def _text(value: object) -> str:
    return value.decode("utf-8", "replace").rstrip("\0") if isinstance(value, bytes) else str(value)


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
