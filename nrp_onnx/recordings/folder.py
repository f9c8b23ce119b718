"""The folder format of recordings: images, two CSV tables, responses in Parquet, facts in JSON."""

import csv
import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from nrp_onnx.errors import OutputError, RecordingsError
from nrp_onnx.files import whole_folder, write_json
from nrp_onnx.recordings.types import Recordings

FORMAT_VERSION = 1
_ROWS_A_GROUP = 4096


@dataclass
class Table:
    """A CSV file as columns of text."""

    path: Path
    columns: dict[str, list[str]]

    def further(self, *known: str) -> dict[str, tuple[str, ...]]:
        """The columns that are not among the known ones."""
        return {name: tuple(v) for name, v in self.columns.items() if name not in known}


def read_table(path: Path, required: Sequence[str]) -> Table:
    """Read a CSV file with a header.

    Raises:
        RecordingsError: if it is missing, empty, uneven, or lacks a required column.
    """
    if not path.is_file():
        raise RecordingsError("the file is missing", where=path, expected="a CSV table")
    with path.open(newline="", encoding="utf-8-sig") as file:
        rows = list(csv.reader(file))
    header, body = (rows[0], [row for row in rows[1:] if row]) if rows else ([], [])
    for name in required:
        if name not in header:
            raise RecordingsError(
                f"the column {name} is missing",
                where=path,
                expected=", ".join(required),
                found=", ".join(header) or "an empty file",
            )
    for line, row in enumerate(body, start=2):
        if len(row) != len(header):
            raise RecordingsError(
                f"line {line} is uneven",
                where=path,
                expected=f"{len(header)} fields",
                found=len(row),
            )
    return Table(path, {name: [row[i] for row in body] for i, name in enumerate(header)})


def first_duplicate(values: Sequence[Any]) -> Any:
    """The first value that comes a second time, or None."""
    seen = set()
    for value in values:
        if value in seen:
            return value
        seen.add(value)
    return None


def save_recordings(recordings: Recordings, folder: Path) -> None:
    """Write recordings, images included, as a folder: whole or not at all.

    Raises:
        OutputError: if the folder exists and is not empty.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise OutputError(
            "the place is taken",
            where=folder,
            expected="a new or empty folder",
            fix="Choose another one with -o.",
        )
    with whole_folder(folder) as part:
        (part / "stimuli").mkdir()
        names = [path.name for path in recordings.stimulus_paths]
        for path in recordings.stimulus_paths:
            shutil.copyfile(path, part / "stimuli" / path.name)
        write_tables(recordings, names, part)


def write_tables(recordings: Recordings, filenames: Sequence[str], folder: Path) -> None:
    """Write all but the images of a recordings folder."""
    _write_csv(
        folder / "stimuli.csv",
        {
            "stimulus_id": recordings.stimulus_ids,
            "filename": filenames,
            **recordings.stimulus_labels,
        },
    )
    _write_csv(
        folder / "sites.csv",
        {
            "site_id": recordings.site_ids,
            "region": recordings.regions,
            **recordings.site_labels,
        },
    )
    ids = np.array(recordings.stimulus_ids, object)[recordings.presentation_stimulus]
    table = {
        "stimulus_id": pa.array(ids, pa.string()),
        "repetition": pa.array(recordings.repetition, pa.int32()),
        "responses": _fixed_size(recordings.responses),
    }
    _write_parquet(folder / "responses.parquet", table)
    if recordings.noise_free is not None:
        table = {
            "stimulus_id": pa.array(recordings.stimulus_ids, pa.string()),
            "rates": _fixed_size(recordings.noise_free),
        }
        _write_parquet(folder / "noise_free.parquet", table)
    facts = {
        "format_version": FORMAT_VERSION,
        "name": recordings.name,
        "units": recordings.units,
        "normalised": recordings.normalised,
        "time_window_ms": recordings.time_window_ms,
        "licence": recordings.licence,
        "citation": recordings.citation,
        "simulated": recordings.simulated,
        "provenance": recordings.provenance or {},
    }
    write_json(folder / "recordings.json", facts)


def _fixed_size(array: np.ndarray) -> pa.Array:
    flat = pa.array(np.ascontiguousarray(array, np.float32).ravel())
    return pa.FixedSizeListArray.from_arrays(flat, array.shape[1])


def _write_parquet(path: Path, columns: dict[str, pa.Array]) -> None:
    pq.write_table(
        pa.table(columns), path, use_dictionary=False, row_group_size=_ROWS_A_GROUP
    )


def _write_csv(path: Path, columns: dict[str, Sequence[str]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))


def load_recordings(folder: Path) -> Recordings:
    """Read a recordings folder.

    Raises:
        RecordingsError: for the first thing that is wrong with it.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise RecordingsError(
            "no such recordings",
            where=folder,
            expected="a recordings folder, simulated, or simulated:N",
            fix="Make one with: nrp-onnx recordings import",
        )
    recordings = read_unchecked(folder)
    for problem in problems_of(recordings, folder):
        raise problem
    return recordings


def read_unchecked(folder: Path) -> Recordings:
    facts_path = folder / "recordings.json"
    try:
        facts = json.loads(facts_path.read_text(encoding="utf-8"))
        name, units = str(facts["name"]), str(facts.get("units", "unknown"))
    except FileNotFoundError:
        raise RecordingsError(
            "the file is missing", where=facts_path, expected="name, units, simulated, ..."
        ) from None
    except (ValueError, KeyError, TypeError) as error:
        raise RecordingsError(
            "this is no description of recordings",
            where=facts_path,
            expected="a JSON object with at least a name",
            found=error,
        ) from None
    stimuli = read_table(folder / "stimuli.csv", ("stimulus_id", "filename"))
    sites = read_table(folder / "sites.csv", ("site_id", "region"))
    ids = stimuli.columns["stimulus_id"]
    n_sites = len(sites.columns["site_id"])
    path = folder / "responses.parquet"
    table = _read_parquet(path, ("stimulus_id", "repetition", "responses"))
    places = {name: place for place, name in enumerate(ids)}
    shown = table["stimulus_id"].to_pylist()
    unknown = next((name for name in shown if name not in places), None)
    if unknown is not None:
        raise RecordingsError(
            "there are responses to an unknown stimulus",
            where=path,
            expected="the stimulus_id of stimuli.csv",
            found=repr(unknown),
        )
    noise_free = None
    if (folder / "noise_free.parquet").is_file():
        truth = _read_parquet(folder / "noise_free.parquet", ("stimulus_id", "rates"))
        order = {name: row for row, name in enumerate(truth["stimulus_id"].to_pylist())}
        rates = _matrix(truth["rates"], n_sites, folder / "noise_free.parquet")
        noise_free = rates[[order[name] for name in ids]]
    window = facts.get("time_window_ms")
    return Recordings(
        name=name,
        stimulus_ids=tuple(ids),
        stimulus_paths=tuple(folder / "stimuli" / file for file in stimuli.columns["filename"]),
        stimulus_labels=stimuli.further("stimulus_id", "filename"),
        site_ids=tuple(sites.columns["site_id"]),
        regions=tuple(sites.columns["region"]),
        site_labels=sites.further("site_id", "region"),
        responses=_matrix(table["responses"], n_sites, path),
        presentation_stimulus=np.array([places[name] for name in shown], np.int64),
        repetition=table["repetition"].to_numpy().astype(np.int32),
        units=units,
        normalised=bool(facts.get("normalised", False)),
        time_window_ms=None if window is None else (float(window[0]), float(window[1])),
        licence=facts.get("licence"),
        citation=facts.get("citation"),
        simulated=bool(facts.get("simulated", False)),
        provenance=facts.get("provenance") or {},
        noise_free=noise_free,
    )


def _read_parquet(path: Path, required: Sequence[str]) -> pa.Table:
    try:
        table = pq.read_table(path)
    except FileNotFoundError:
        raise RecordingsError("the file is missing", where=path, expected="Parquet") from None
    except pa.ArrowInvalid as error:
        raise RecordingsError(
            "this file cannot be read", where=path, expected="whole Parquet", found=error
        ) from None
    if missing := [name for name in required if name not in table.column_names]:
        raise RecordingsError(
            f"the column {missing[0]} is missing",
            where=path,
            expected=", ".join(required),
            found=", ".join(table.column_names),
        )
    return table


def _matrix(column: pa.ChunkedArray, n_sites: int, path: Path) -> np.ndarray:
    size = getattr(column.type, "list_size", None)
    if size != n_sites:
        raise RecordingsError(
            "the lists do not fit sites.csv",
            where=path,
            expected=f"FixedSizeList of {n_sites} numbers",
            found=column.type,
        )
    flat = column.combine_chunks().flatten()
    return np.asarray(flat.to_numpy(zero_copy_only=False), np.float32).reshape(-1, n_sites)


def problems_of(recordings: Recordings, folder: Path) -> Iterator[RecordingsError]:
    """What is wrong with recordings that could be read, the worst first."""
    stimuli, sites, responses = (
        folder / name for name in ("stimuli.csv", "sites.csv", "responses.parquet")
    )
    for path, what, values in (
        (stimuli, "stimulus_id", recordings.stimulus_ids),
        (sites, "site_id", recordings.site_ids),
    ):
        if not values:
            yield RecordingsError("the table is empty", where=path, expected=f"a {what} or more")
        if (twice := first_duplicate(values)) is not None:
            yield RecordingsError(f"a {what} comes twice", where=path, found=repr(twice))
    root = (folder / "stimuli").resolve()
    for name, path in zip(recordings.stimulus_ids, recordings.stimulus_paths, strict=True):
        if not path.resolve().is_relative_to(root):
            yield RecordingsError(
                f"the filename of stimulus {name} leaves the folder",
                where=stimuli,
                expected=f"a file in {root}",
                found=path,
            )
        elif not path.is_file():
            yield RecordingsError(
                f"the image of stimulus {name} is missing", where=stimuli, expected=path
            )
    shown = np.bincount(recordings.presentation_stimulus, minlength=recordings.n_stimuli)
    if silent := [recordings.stimulus_ids[i] for i in np.flatnonzero(shown == 0)]:
        yield RecordingsError(
            f"{len(silent)} of {recordings.n_stimuli} stimuli have no responses",
            where=responses,
            expected="at least one presentation a stimulus",
            found=f"none for {silent[0]!r}",
        )
    pairs = list(
        zip(recordings.presentation_stimulus.tolist(), recordings.repetition.tolist(), strict=True)
    )
    if (twice := first_duplicate(pairs)) is not None:
        yield RecordingsError(
            "a repetition of a stimulus comes twice",
            where=responses,
            found=f"repetition {twice[1]} of {recordings.stimulus_ids[twice[0]]!r}",
        )
    if np.isinf(recordings.responses).any():
        yield RecordingsError(
            "there are infinite responses", where=responses, expected="numbers, or NaN for missing"
        )
    for site in np.flatnonzero(np.isnan(recordings.responses).all(axis=0)):
        yield RecordingsError(
            f"the site {recordings.site_ids[site]} has no response at all",
            where=responses,
            expected="a number or more",
            found="NaN only",
            fix="Leave the site out.",
        )
