"""A BrainIO assembly: responses over neuroids, presentations and time bins, in a netCDF-4 file."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from nrp_onnx.errors import OptionError, RecordingsError
from nrp_onnx.progress import progress_bar
from nrp_onnx.recordings.importers.netcdf import DIM as TIME_BIN
from nrp_onnx.recordings.importers.netcdf import TimeBins, Variable, open_netcdf

if TYPE_CHECKING:
    import h5py

PRESENTATION, NEUROID = "presentation", "neuroid"
_BLOCK_BYTES = 32 * 2**20


@dataclass(frozen=True)
class Assembly:
    """An open assembly: its responses, and its coordinates by dimension and name.

    Attributes:
        coordinates: of each dimension, the variables that have only this one.
        levels: of each dimension, those of a multi-index that the file has instead.
    """

    path: Path
    responses: Variable
    coordinates: dict[str, dict[str, Variable]]
    levels: dict[str, dict[str, tuple[str, ...]]]

    def length(self, dim: str) -> int | None:
        """The length of a dimension of the responses; None if they do not have it."""
        dims = self.responses.dims
        return int(self.responses.data.shape[dims.index(dim)]) if dim in dims else None

    def texts(self, dim: str, name: str) -> tuple[str, ...] | None:
        """A coordinate as texts; None if there is none of that name."""
        variable = self.coordinates[dim].get(name)
        return self.levels[dim].get(name) if variable is None else variable.texts()

    def names(self, dim: str) -> list[str]:
        """The names of a dimension's coordinates."""
        return [*self.coordinates[dim], *self.levels[dim]]

    def read(self, bins: TimeBins) -> np.ndarray:
        """The responses averaged over time bins, float32 (n_presentations, n_neuroids).

        A response is NaN where one of its bins is. The file is read in blocks of some 32 MiB, or
        of one chunk of the file if that is larger.
        """
        dims, data = self.responses.dims, self.responses.data
        axis = next(place for place, dim in enumerate(dims) if dim != TIME_BIN)
        order = [dims.index(dim) for dim in (PRESENTATION, NEUROID, TIME_BIN) if dim in dims]
        n = data.shape[axis]
        out = np.empty([data.shape[place] for place in order[:2]], np.float32)
        with progress_bar("Reading the responses", n) as advance:
            for start in range(0, n, step := _rows_a_block(data, axis)):
                rows = slice(start, min(start + step, n))
                cut: list[slice] = [slice(None)] * len(dims)
                cut[axis] = rows
                if bins.places is not None:
                    first, last = int(bins.places[0]), int(bins.places[-1])
                    cut[dims.index(TIME_BIN)] = slice(first, last + 1)
                block = _decoded(data[tuple(cut)], self.responses).transpose(order)
                if bins.places is not None:
                    block = block[:, :, bins.places - first].mean(axis=2, dtype=np.float64)
                place = (rows,) if dims[axis] == PRESENTATION else (slice(None), rows)
                with np.errstate(over="ignore"):  # becomes infinite, which is reported as such
                    out[place] = block
                advance(rows.stop - rows.start)
        return out


@contextmanager
def open_assembly(path: Path, key: str | None = None) -> Iterator[Assembly]:
    """Open an assembly.

    Args:
        key: the variable with the responses; None if only one has their dimensions.

    Raises:
        RecordingsError: if the file is damaged, or no variable has the dimensions presentation and
            neuroid and, where there is one, time_bin, in any order.
        OptionError: if several have them, or ``key`` does not.
    """
    with open_netcdf(path) as variables:
        responses = _responses(path, variables, key)
        coordinates = {
            dim: {name: variable for name, variable in variables.items() if variable.dims == (dim,)}
            for dim in responses.dims
        }
        levels = {}
        for dim in (PRESENTATION, NEUROID):
            _check_lengths(path, responses, dim, coordinates[dim])
            levels[dim] = _levels(variables, dim)
        yield Assembly(path, responses, coordinates, levels)


def _levels(variables: dict[str, Variable], dim: str) -> dict[str, tuple[str, ...]]:
    """Levels of a multi-index that is stored as the CF convention "compression by gathering".

    The variable of the dimension's own name holds one number a place, which counts through all
    combinations of the levels, the last level fastest.
    """
    index = variables.get(dim)
    if index is None or "compress" not in index.data.attrs:
        return {}
    named = index.data.attrs["compress"]
    names = (named.decode() if isinstance(named, bytes) else str(named)).split()
    values = {name: variables[name].texts() for name in names if name in variables}
    if len(values) < len(names):
        return {}
    codes = np.unravel_index(
        index.data[...].astype(np.int64), [len(texts) for texts in values.values()]
    )
    return {
        name: tuple(texts[code] for code in places)
        for (name, texts), places in zip(values.items(), codes, strict=True)
    }


def _responses(path: Path, variables: dict[str, Variable], key: str | None) -> Variable:
    fitting = {
        name: variable
        for name, variable in variables.items()
        if variable.is_numeric
        and sorted(variable.dims)
        in (sorted((PRESENTATION, NEUROID)), sorted((PRESENTATION, NEUROID, TIME_BIN)))
    }
    listed = ", ".join(f"{name} ({', '.join(v.dims)})" for name, v in variables.items()) or "none"
    if not fitting:
        widest = max((len(variable.dims) for variable in variables.values()), default=0)
        raise RecordingsError(
            "no variable holds responses",
            where=path,
            expected=f"numbers over {PRESENTATION}, {NEUROID} and perhaps {TIME_BIN}",
            found=", ".join(
                f"{name} ({', '.join(v.dims)})"
                for name, v in variables.items()
                if len(v.dims) == widest and v.is_numeric
            )
            or listed,
        )
    if key is not None and key not in fitting:
        raise OptionError(
            "the assembly has no such responses",
            where="--key",
            expected=f"one of {', '.join(fitting)}",
            found=repr(key),
        )
    if key is None and len(fitting) > 1:
        raise OptionError(
            f"{len(fitting)} variables may be the responses",
            where=path,
            expected="one, or --key",
            found=", ".join(fitting),
            fix="Name one with --key.",
        )
    return fitting[key] if key is not None else next(iter(fitting.values()))


def _check_lengths(
    path: Path, responses: Variable, dim: str, coordinates: dict[str, Variable]
) -> None:
    n = responses.data.shape[responses.dims.index(dim)]
    for name, variable in coordinates.items():
        if variable.data.shape[0] != n:
            raise RecordingsError(
                f"the variable {name} does not fit the responses",
                where=path,
                expected=f"{n} along {dim}",
                found=variable.data.shape[0],
            )


def _rows_a_block(data: "h5py.Dataset", axis: int) -> int:
    """How many rows of an axis to read at once: whole chunks of the file, at least one."""
    shape, chunks = data.shape, data.chunks or (1,) * data.ndim
    row_bytes = 8 * math.prod(shape) // max(shape[axis], 1)
    rows = max(_BLOCK_BYTES // max(row_bytes, 1), 1)
    return int(max(rows // chunks[axis] * chunks[axis], chunks[axis]))


def _decoded(block: np.ndarray, variable: Variable) -> np.ndarray:
    """Numbers as the CF attributes mean them: fill values are NaN, packed numbers are unpacked."""
    attributes = variable.data.attrs
    fills = [
        np.ravel(attributes[name])[0]
        for name in ("_FillValue", "missing_value")
        if name in attributes
    ]
    fills = [fill for fill in fills if fill == fill]
    scale = [float(np.ravel(attributes.get(name, empty))[0]) for name, empty in _PACKING]
    if not fills and scale == [1, 0]:
        return block
    numbers = block.astype(np.float64)
    numbers[np.isin(block, fills)] = np.nan
    return numbers * scale[0] + scale[1]


_PACKING = (("scale_factor", 1.0), ("add_offset", 0.0))
