"""NWB files of any lab: spike times, a table of presentations, and the images.

Read with pynwb. Rates are spikes per second in a window after each presentation's start. Presentations
are the rows of a table of intervals with a column that names the image. Images are the templates of
the file, or files of the user.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nrp_onnx.errors import NrpOnnxError, OptionError, RecordingsError
from nrp_onnx.files import safe_name, sha256_of_file
from nrp_onnx.notes import Notes
from nrp_onnx.packages import HDF5_FIX, imported
from nrp_onnx.recordings.checks import Sources, some
from nrp_onnx.recordings.image_files import ImageSource, open_images
from nrp_onnx.recordings.importers.encoded_images import encoded_images
from nrp_onnx.recordings.importers.hdf5 import child, open_hdf5, top_names
from nrp_onnx.recordings.importers.importer import Importer, Parts
from nrp_onnx.recordings.importers.stimulus_set import ImageNames
from nrp_onnx.recordings.recordings import Recordings

_FIX = "Run: pip install 'nrp-onnx[nwb]'."
#: Columns that name the image of a presentation, the most telling first.
ID_COLUMNS = ("stimulus_id", "image_name", "image_id", "frame", "stimulus_index")
#: What a presentation of no image is called.
_BLANKS = frozenset(("blank", "grey", "gray", "-1", "-1.0"))
#: Columns of units that say where they are, and those of their electrodes.
_REGION_COLUMNS = ("location", "region", "brain_area", "area", "ecephys_structure_acronym")


def _detect(path: Path) -> str | None:
    if path.is_file() and path.suffix == ".nwb":
        return "its name ends in .nwb"
    names = top_names(path)
    return "it has units and intervals" if names >= _GROUPS else None


_GROUPS = frozenset(("units", "intervals", "session_start_time"))


@contextmanager
def _read(
    path: Path,
    notes: Notes,
    *,
    window: tuple[float, float],
    key: str | None = None,
    images: Path | None = None,
    region: str | None = None,
) -> Iterator[Parts]:
    """Read an NWB file.

    Args:
        window: start and end in ms after the start of a presentation.
        key: the table of intervals, where several name images.
        images: a folder or zip, where the file has no templates; found by the name or its stem.
        region: of all units, where the file does not tell.
    """
    if not window[0] < window[1]:
        raise OptionError(
            "the window is empty",
            where="--window",
            expected="two rising numbers, in ms",
            found=f"{window[0]:g} {window[1]:g}",
        )
    imported("h5py", HDF5_FIX)
    pynwb = imported("pynwb", _FIX)
    with open_hdf5(path, "NWB (HDF5) file") as raw:
        _check_links(raw, path)
    with ExitStack() as stack:
        try:
            file = stack.enter_context(
                pynwb.NWBHDF5IO(str(path), mode="r", load_namespaces=True)
            ).read()
            presentations = _presentations(file, key, path)
            units = _units(file, region, path)
            templates = _templates(file)
        except NrpOnnxError:
            raise
        # pynwb meets damage in many ways, among them TypeError and errors of its own.
        except Exception as error:
            raise RecordingsError(
                "this file cannot be read",
                where=path,
                expected="a whole NWB file",
                found=f"{type(error).__name__}: {error}",
                fix="Check it with nwbinspector.",
            ) from None
        rates = _rates(units.spikes, presentations.starts, window)
        is_blank = np.array([name.lower() in _BLANKS for name in presentations.images])
        shown = [
            name for name, blank in zip(presentations.images, is_blank, strict=True) if not blank
        ]
        if is_blank.any():
            rates = rates - rates[is_blank].mean(axis=0)
            notes.say(
                f"rates are less those to {is_blank.sum()} blank presentations "
                f"({some(sorted(set(presentations.images) - set(shown)))})"
            )
        ids = tuple(dict.fromkeys(shown))
        if templates and images is None:
            source = _encoded(ids, templates, path)
            filenames = {name: f"{safe_name(name)}.png" for name in ids}
        elif images is not None:
            source = stack.enter_context(open_images(images))
            filenames = _found(ids, source, path)
        else:
            raise OptionError(
                "the images are not in the file",
                where="--images",
                expected="a folder or a zip of images",
                found=f"{path.name} without stimulus templates",
            )
        places = {name: place for place, name in enumerate(ids)}
        counts: dict[str, int] = {}
        repetition = np.empty(len(shown), np.int32)
        for row, name in enumerate(shown):
            repetition[row] = counts[name] = counts.get(name, -1) + 1
        subject = getattr(file.subject, "subject_id", None) or ""
        session = str(file.session_id or path.stem)
        n = len(units.ids)
        recordings = Recordings(
            name=path.stem,
            stimulus_ids=ids,
            stimulus_paths=tuple(Path(filenames[name]) for name in ids),
            stimulus_labels={},
            site_ids=units.ids,
            regions=units.regions,
            site_labels={"animal": (subject,) * n, "session": (session,) * n},
            responses=rates[~is_blank].astype(np.float32),
            presentation_stimulus=np.array([places[name] for name in shown], np.int64),
            repetition=repetition,
            units="spikes/s less those to a blank" if is_blank.any() else "spikes/s",
            normalised=bool(is_blank.any()),
            time_window_ms=window,
            citation=", ".join(file.related_publications or ()) or None,
            provenance={
                "importer": "nwb",
                "responses": {"file": path.name, "sha256": sha256_of_file(path)},
                "presentations": presentations.where,
                "n_blank_presentations": int(is_blank.sum()),
                "images": "templates of the file" if images is None else Path(images).name,
            },
        )
        yield Parts(recordings, source, Sources(path, path, path))


@dataclass(frozen=True)
class _Presentations:
    """Starts in seconds, float64 (n,), the name of each image, and the table and column of both."""

    starts: np.ndarray
    images: tuple[str, ...]
    where: str


def _presentations(file: Any, key: str | None, path: Path) -> _Presentations:
    tables = {table.name: table for table in (*file.intervals.values(), file.trials) if table}
    named = {
        name: column
        for name, table in tables.items()
        if (column := next((c for c in ID_COLUMNS if c in table.colnames), None)) is not None
    }
    if key is not None:
        named = {name: column for name, column in named.items() if name == key}
    if len(named) != 1:
        raise OptionError(
            "no table names the image of each presentation"
            if not named
            else f"{len(named)} tables name images",
            where=path if key is None else "--key",
            expected=f"one table of intervals with a column {' or '.join(ID_COLUMNS)}",
            found="; ".join(f"{name!r} with {some(t.colnames)}" for name, t in tables.items())
            or "no table",
            fix=f"Name one, as --key {next(iter(named))}." if named else None,
        )
    ((name, column),) = named.items()
    starts = np.asarray(tables[name]["start_time"][:], np.float64)
    images = tuple(map(_name, tables[name][column][:]))
    return _Presentations(starts, images, f"{name}, column {column}")


def _name(value: Any) -> str:
    """An image's name; numbers that are whole lose their point."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    number = isinstance(value, int | float | np.number)
    return f"{int(value)}" if number and float(value).is_integer() else str(value)


@dataclass(frozen=True)
class _Units:
    ids: tuple[str, ...]
    regions: tuple[str, ...]
    spikes: list[np.ndarray]


def _units(file: Any, region: str | None, path: Path) -> _Units:
    """Ids, regions and spike times, in seconds, of all units."""
    table = file.units
    if table is None or "spike_times" not in table.colnames:
        raise RecordingsError(
            "the file has no spikes", where=path, expected="units with spike_times", found="none"
        )
    n = len(table.id)
    spikes = [np.sort(np.asarray(table.get_unit_spike_times(place))) for place in range(n)]
    ids = tuple(str(value) for value in table.id[:])
    if region is not None:
        return _Units(ids, (region,) * n, spikes)
    column = next((name for name in _REGION_COLUMNS if name in table.colnames), None)
    if column is not None:
        regions = tuple(map(_name, table[column][:]))
    elif "electrode_group" in table.colnames:
        regions = tuple(str(group.location) for group in table["electrode_group"][:])
    elif "electrodes" in table.colnames and "location" in file.electrodes.colnames:
        regions = tuple(
            str(next(iter(table["electrodes"][place]["location"]), "")) for place in range(n)
        )
    else:
        raise RecordingsError(
            "the file does not say where its units are",
            where=path,
            expected=f"a column {' or '.join(_REGION_COLUMNS)} of units, or their electrodes",
            found=some(table.colnames),
            fix="If all are in one region, name it, as --region V4.",
        )
    return _Units(ids, regions, spikes)


def _rates(spikes: list[np.ndarray], starts: np.ndarray, window: tuple[float, float]) -> np.ndarray:
    """Spikes per second within the window, float64 (n_presentations, n_units)."""
    first, last = starts + window[0] / 1000, starts + window[1] / 1000
    counts = [
        np.searchsorted(times, last, side="left") - np.searchsorted(times, first, side="left")
        for times in spikes
    ]
    return np.stack(counts, axis=1) * 1000.0 / (window[1] - window[0])


def _templates(file: Any) -> dict[str, Any]:
    """The pixels of each template by name and by number; of an image series by number only."""
    found: dict[str, Any] = {}
    for template in file.stimulus_template.values():
        pictures = getattr(template, "images", None)
        if pictures is not None:
            for number, picture in enumerate(pictures.values()):
                found.setdefault(str(number), picture.data)
                found[picture.name] = picture.data
        elif getattr(template, "external_file", None) is None and template.data is not None:
            for number in range(len(template.data)):
                found.setdefault(str(number), (template.data, number))
    return found


def _encoded(ids: tuple[str, ...], templates: dict[str, Any], path: Path) -> ImageSource:
    if missing := [name for name in ids if name not in templates]:
        raise RecordingsError(
            f"{len(missing)} of {len(ids)} images are not among the templates",
            where=path,
            expected=some(missing),
            found=f"{len(templates)} names and numbers, such as {some(sorted(templates)[:1])}",
            fix="Name a folder of images with --images.",
        )
    names = {f"{safe_name(name)}.png": name for name in ids}
    if len(names) < len(ids):
        raise RecordingsError(
            "two images have names that differ in special characters only",
            where=path,
            expected=f"{len(ids)} names",
            found=len(names),
        )

    def pixels(filename: str) -> np.ndarray:
        data = templates[names[filename]]
        array = data[0][data[1]] if isinstance(data, tuple) else data[:]
        return np.asarray(array)

    return encoded_images(path, tuple(names), pixels)


def _found(ids: tuple[str, ...], source: ImageSource, path: Path) -> dict[str, str]:
    names = ImageNames(source)
    found = {name: names.find(name) or names.find_stem(name) for name in ids}
    if missing := [name for name, file in found.items() if file is None]:
        raise RecordingsError(
            f"{len(missing)} of the {len(ids)} images that {path.name} names are missing",
            where=source.path,
            expected=some(missing),
            found=f"{len(source.names)} files, such as {some(sorted(source.names)[:1])}",
        )
    return {name: file for name, file in found.items() if file is not None}


def _check_links(group: Any, path: Path) -> None:
    """Refuse a file that leads out of itself anywhere: pynwb would follow."""
    for name in group:
        inner = child(group, name, path)
        if hasattr(inner, "keys") and inner.name.startswith(group.name):
            _check_links(inner, path)


IMPORTER = Importer(
    "nwb", "a file .nwb, or with units, intervals and session_start_time", _detect, _read
)
