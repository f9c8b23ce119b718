"""CSV tables of stimuli and sites, as columns of text."""

import csv
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from nrp_onnx.errors import RecordingsError
from nrp_onnx.recordings.checks import Report, raise_problem


@dataclass(frozen=True)
class Table:
    """A CSV file: its columns by name, each with one text a row."""

    columns: dict[str, tuple[str, ...]]

    def further(self, *known: str) -> dict[str, tuple[str, ...]]:
        """The columns that are not among the known ones."""
        return {name: values for name, values in self.columns.items() if name not in known}


def read_table(path: Path, required: Sequence[str], report: Report = raise_problem) -> Table | None:
    """Read a CSV file with a header and one row or more.

    Returns:
        None if it cannot be used, with all that is wrong with it reported.
    """
    if not path.is_file():
        report(RecordingsError("no such file", where=path, expected=f"columns {_names(required)}"))
        return None
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            # Line numbers are those of an editor, also where a field spans lines.
            reader = csv.reader(file, strict=True)
            rows = [(reader.line_num, row) for row in reader if row]
    except (UnicodeDecodeError, csv.Error) as error:
        report(
            RecordingsError(
                "this is no table", where=path, expected="a CSV file in UTF-8", found=error
            )
        )
        return None
    header = rows.pop(0)[1] if rows else []
    problems = [
        RecordingsError(
            f"the column {name} is missing",
            where=path,
            expected=f"columns {_names(required)}",
            found=_names(header) or "an empty file",
        )
        for name in required
        if name not in header
    ]
    problems += [
        RecordingsError(
            f"the column {name} comes twice", where=path, expected="each once", found=_names(header)
        )
        for name, times in Counter(header).items()
        if times > 1
    ]
    problems += [
        RecordingsError(
            f"line {line} does not fit the header",
            where=path,
            expected=f"{len(header)} fields",
            found=len(row),
        )
        for line, row in rows
        if len(row) != len(header)
    ]
    if header and not rows:
        problems.append(
            RecordingsError("the table is empty", where=path, expected="a row or more", found=0)
        )
    for problem in problems:
        report(problem)
    if problems:
        return None
    return Table({name: tuple(row[i] for _, row in rows) for i, name in enumerate(header)})


def write_table(path: Path, columns: Mapping[str, Sequence[str]]) -> None:
    """Write a CSV file with a header."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))


def _names(names: Sequence[str]) -> str:
    return ", ".join(names)
