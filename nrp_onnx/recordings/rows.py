"""Parquet files with a list of numbers a row, one number a site."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from nrp_onnx.errors import RecordingsError
from nrp_onnx.recordings.checks import Report

_ROWS_A_GROUP = 1024
_SITES_KEY = b"nrp_onnx.sites"


def write_rows(
    path: Path,
    keys: Mapping[str, pa.Array],
    numbers: tuple[str, np.ndarray],
    site_ids: Sequence[str],
) -> None:
    """Write key columns and one column of lists.

    Args:
        numbers: the column's name, and an array of shape (n_rows, n_sites).
        site_ids: kept in the schema, so that a sites.csv in another order is found out.
    """
    name, array = numbers
    flat = pa.array(np.ascontiguousarray(array, np.float32).ravel())
    table = pa.table({**keys, name: pa.FixedSizeListArray.from_arrays(flat, array.shape[1])})
    table = table.replace_schema_metadata({_SITES_KEY: json.dumps(list(site_ids))})
    pq.write_table(
        table, path, compression="zstd", use_dictionary=False, row_group_size=_ROWS_A_GROUP
    )


def read_rows(
    path: Path,
    keys: Mapping[str, pa.DataType],
    lists: str,
    site_ids: Sequence[str] | None,
    report: Report,
) -> tuple[dict[str, list[Any]], np.ndarray] | None:
    """Read key columns and one column of lists.

    Args:
        keys: the type of each key column.
        site_ids: whose number the lists must have; None where they are not known.

    Returns:
        The keys by column, and a float32 array (n_rows, n_sites) with NaN for null. None if the
        file cannot be used, with what is wrong with it reported.
    """
    required = [*keys, lists]
    try:
        file = pq.ParquetFile(path)
        table = file.read(columns=[name for name in required if name in file.schema_arrow.names])
    except FileNotFoundError:
        report(
            RecordingsError("no such file", where=path, expected=f"columns {', '.join(required)}")
        )
        return None
    except (pa.ArrowException, OSError) as error:
        report(
            RecordingsError(
                "this file cannot be read", where=path, expected="a whole Parquet file", found=error
            )
        )
        return None
    missing = [name for name in required if name not in table.column_names]
    for name in missing:
        report(
            RecordingsError(
                f"the column {name} is missing",
                where=path,
                expected=f"columns {', '.join(required)}",
                found=", ".join(file.schema_arrow.names),
            )
        )
    if missing:
        return None
    columns: dict[str, list[Any]] = {}
    for name, kind in keys.items():
        values = _key_column(table[name], name, kind, path)
        if isinstance(values, RecordingsError):
            report(values)
        else:
            columns[name] = values
    matrix = _matrix(table[lists], lists, site_ids, path)
    if isinstance(matrix, RecordingsError):
        report(matrix)
        return None
    for problem in _other_order(table.schema.metadata, site_ids, path):
        report(problem)
    return (columns, matrix) if len(columns) == len(keys) else None


def _key_column(
    column: pa.ChunkedArray, name: str, kind: pa.DataType, path: Path
) -> list[Any] | RecordingsError:
    try:
        if not column.null_count:
            values: list[Any] = column.cast(kind).to_pylist()
            return values
        found: object = f"{column.null_count} nulls"
    except pa.ArrowInvalid:
        found = column.type
    return RecordingsError(
        f"the column {name} cannot be used",
        where=path,
        expected=f"{kind} in each row",
        found=found,
    )


def _matrix(
    column: pa.ChunkedArray, name: str, site_ids: Sequence[str] | None, path: Path
) -> np.ndarray | RecordingsError:
    """The lists as float32 array (n_rows, n_sites), or what is wrong with them."""
    kind = column.type
    is_list = any(
        test(kind)
        for test in (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    )
    if not is_list or not _is_number(kind.value_type):
        return RecordingsError(
            f"the column {name} holds no lists of numbers",
            where=path,
            expected="FixedSizeList<float32>",
            found=kind,
        )
    if column.null_count:
        return RecordingsError(
            f"the column {name} has rows without a list",
            where=path,
            expected="a list in each row",
            found=f"{column.null_count} nulls",
        )
    lengths = pc.unique(pc.list_value_length(column)).to_pylist()
    expected = {len(site_ids)} if site_ids is not None else set(lengths[:1])
    if wrong := [length for length in lengths if length not in expected]:
        return RecordingsError(
            f"the lists of the column {name} do not fit sites.csv",
            where=path,
            expected=f"{min(expected)} numbers a row, one a site",
            found=wrong[0],
        )
    flat = pc.list_flatten(column).to_numpy()
    with np.errstate(over="ignore"):  # becomes infinite, which is reported as such
        matrix: np.ndarray = flat.astype(np.float32, copy=False)
    return matrix.reshape(len(column), max(expected, default=0))


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_floating(kind) or pa.types.is_integer(kind))


def _other_order(
    metadata: dict[bytes, bytes] | None, site_ids: Sequence[str] | None, path: Path
) -> list[RecordingsError]:
    """A problem if the file was written for other sites than those of sites.csv, in their order."""
    written = json.loads((metadata or {}).get(_SITES_KEY, b"null"))
    if written is None or site_ids is None or len(written) != len(site_ids):
        return []
    return [
        RecordingsError(
            f"site {place} of the lists is another than that of sites.csv",
            where=path,
            expected=repr(there),
            found=f"{here!r} in sites.csv",
            fix="Put the rows of sites.csv back in the order of the lists.",
        )
        for place, (there, here) in enumerate(zip(written, site_ids, strict=True))
        if there != here
    ][:1]
