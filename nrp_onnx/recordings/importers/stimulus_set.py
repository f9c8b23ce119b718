"""A BrainIO stimulus set: a table of stimuli and their images, joined to an assembly by id."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

import numpy as np

from nrp_onnx.errors import RecordingsError
from nrp_onnx.recordings.checks import check_unique, raise_problem, some
from nrp_onnx.recordings.image_files import ImageSource, leaves_folder
from nrp_onnx.recordings.tables import Table, read_table

#: Names of the column of ids, the newer one first.
ID_COLUMNS = ("stimulus_id", "image_id")
_FILE_COLUMNS = ("filename", "image_file_name", "image_path_within_store")


@dataclass(frozen=True)
class StimulusSet:
    """The stimuli that were shown, in the order of the table.

    Attributes:
        filenames: of the images, as they are named in their folder or zip.
        labels: further columns of the table.
        ids_from: the column of the table that holds the ids.
        shown: the id of each presentation.
        shown_from: the coordinate of the assembly that holds them.
        filenames_from: the column of the table, or how they were found.
        n_left_out: rows of the table without a presentation.
    """

    ids: tuple[str, ...]
    filenames: tuple[str, ...]
    labels: dict[str, tuple[str, ...]]
    ids_from: str
    shown: tuple[str, ...]
    shown_from: str
    filenames_from: str
    n_left_out: int

    def select(self, recorded: np.ndarray) -> "StimulusSet":
        """The same for some of the presentations, without stimuli that then have none.

        Args:
            recorded: bool array of shape (n_presentations,).
        """
        shown = tuple(np.array(self.shown, object)[recorded])
        present = set(shown)
        rows = [row for row, name in enumerate(self.ids) if name in present]
        return replace(
            self,
            ids=tuple(self.ids[row] for row in rows),
            filenames=tuple(self.filenames[row] for row in rows),
            labels={name: tuple(texts[row] for row in rows) for name, texts in self.labels.items()},
            shown=shown,
            n_left_out=self.n_left_out + len(self.ids) - len(rows),
        )


def read_stimulus_set(
    path: Path, images: ImageSource, shown: Mapping[str, tuple[str, ...]], assembly: Path
) -> StimulusSet:
    """Read the rows of a table of stimuli that an assembly has presentations of.

    Args:
        path: CSV with stimulus_id or image_id.
        shown: ids of the presentations by the coordinate that holds them, one or more.
        assembly: the file that these come from.

    Raises:
        RecordingsError: if the table has no ids, lacks those of presentations, or names images that
            are not there.
    """
    table = read_table(path, ())
    assert table is not None, "problems are raised"
    coordinate, column = _join(table, path, shown, assembly)
    ids = table.columns[column]
    check_unique(ids, column, path, raise_problem)
    present = set(shown[coordinate])
    rows = [row for row, name in enumerate(ids) if name in present]

    def pick(values: Sequence[str]) -> tuple[str, ...]:
        return tuple(values[row] for row in rows)

    columns = {name: pick(values) for name, values in table.columns.items()}
    filenames, filenames_from = _find_images(columns, pick(ids), path, images)
    return StimulusSet(
        ids=pick(ids),
        filenames=filenames,
        # A column without a name is the index that pandas writes; one that repeats the ids says
        # nothing new; the two columns of the folder format have their values already.
        labels={
            name: values
            for name, values in columns.items()
            if name not in ("", "stimulus_id", "filename", column)
            and (name not in ID_COLUMNS or values != pick(ids))
        },
        ids_from=column,
        shown=shown[coordinate],
        shown_from=coordinate,
        filenames_from=filenames_from,
        n_left_out=len(ids) - len(rows),
    )


def _join(
    table: Table, path: Path, shown: Mapping[str, Iterable[str]], assembly: Path
) -> tuple[str, str]:
    """The coordinate and the column that agree best, all presentations being in the table."""
    columns = [name for name in ID_COLUMNS if name in table.columns]
    if not columns:
        raise RecordingsError(
            "the table has no ids of stimuli",
            where=path,
            expected=f"a column {' or '.join(ID_COLUMNS)}",
            found=", ".join(table.columns),
        )
    # Pairs of one name come first, so that they win where others agree as well.
    pairs = sorted(
        ((coordinate, column) for coordinate in shown for column in columns),
        key=lambda pair: pair[0] != pair[1],
    )
    missing = {
        (coordinate, column): dict.fromkeys(
            sorted(set(shown[coordinate]).difference(table.columns[column]))
        )
        for coordinate, column in pairs
    }
    best = min(pairs, key=lambda pair: len(missing[pair]))
    if missing[best]:
        coordinate, column = best
        raise RecordingsError(
            f"{len(missing[best])} stimuli of the assembly are not in the table",
            where=path,
            expected=f"in its column {column} each {coordinate} of {assembly}",
            found=f"no {some(missing[best])}, but {some(table.columns[column][:1])}",
            fix="Check that the assembly and the table belong together.",
        )
    return best


def _find_images(
    columns: Mapping[str, tuple[str, ...]], ids: tuple[str, ...], path: Path, images: ImageSource
) -> tuple[tuple[str, ...], str]:
    """The images' names in their source, from the first column that names them all, or the ids."""
    names = ImageNames(images)
    lost: dict[str, list[str]] = {}
    for column in (name for name in _FILE_COLUMNS if name in columns):
        if outside := [name for name in columns[column] if leaves_folder(name)]:
            raise RecordingsError(
                f"{len(outside)} file names leave the folder of images",
                where=path,
                expected=f"in the column {column} relative names without ..",
                found=some(outside),
            )
        found = [names.find(name) for name in columns[column]]
        lost[column] = [n for n, file in zip(columns[column], found, strict=True) if file is None]
        if not lost[column]:
            return tuple(file for file in found if file is not None), column
    found = [names.find_stem(name) for name in ids]
    missing = [name for name, file in zip(ids, found, strict=True) if file is None]
    if not missing:
        return tuple(file for file in found if file is not None), "ids with a suffix"
    column, missing = next(iter(lost.items()), ("ids with a suffix", missing))
    raise RecordingsError(
        f"{len(missing)} of the {len(ids)} images that {path} names are missing",
        where=images.path,
        expected=f"{some(missing)} ({column})",
        found=f"{len(images.names)} files, such as {some(sorted(images.names)[:1])}",
        fix="Check that the table and the images belong together.",
    )


class ImageNames:
    """Looks images up by name, by the last part of it, and by that part without suffix."""

    def __init__(self, images: ImageSource) -> None:
        self._names = images.names
        last = Counter(PurePosixPath(name).name for name in images.names)
        self._last = {
            PurePosixPath(name).name: name
            for name in images.names
            if last[PurePosixPath(name).name] == 1
        }
        stems = Counter(PurePosixPath(name).stem for name in images.images())
        self._stems = {
            PurePosixPath(name).stem: name
            for name in images.images()
            if stems[PurePosixPath(name).stem] == 1
        }

    def find(self, name: str) -> str | None:
        """The file of that name; where folders differ, that of the same last part, if only one."""
        if name in self._names:
            return name
        return self._last.get(PurePosixPath(name).name)

    def find_stem(self, name: str) -> str | None:
        """The image of that name without suffix, if only one has it."""
        return self._stems.get(name)
