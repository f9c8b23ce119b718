"""Imports images and an array of responses whose axes the user names."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from nrp_onnx.decoding import counts_up
from nrp_onnx.errors import OptionError, RecordingsError
from nrp_onnx.files import sha256_of_file
from nrp_onnx.notes import Notes, logger
from nrp_onnx.recordings.checks import Sources, check_unique, raise_problem, some
from nrp_onnx.recordings.image_files import ImageSource, leaves_folder, open_images
from nrp_onnx.recordings.importers.importer import Importer, Parts
from nrp_onnx.recordings.importers.matrix_files import SUFFIXES, read_array
from nrp_onnx.recordings.importers.writing import import_parts
from nrp_onnx.recordings.recordings import Recordings
from nrp_onnx.recordings.tables import read_table

AXES = ("stimulus", "repetition", "site")
#: Names of the images in a folder that holds the responses, too.
_IMAGES = ("images", "images.zip", "stimuli", "stimuli.zip")


def to_standard_axes(array: np.ndarray, axes: Sequence[str], path: Path) -> np.ndarray:
    """The array as (stimulus, repetition, site); where there are no repetitions, there is one.

    Args:
        axes: the name of each axis of ``array``, in order.

    Raises:
        OptionError: if the axes are not site, stimulus and perhaps repetition, once each.
        RecordingsError: if the array has another number of axes.
    """
    names = list(axes)
    if sorted(names) not in (sorted(AXES), ["site", "stimulus"]):
        raise OptionError(
            "these are no axes of responses",
            where="--axes",
            expected="site, stimulus and, where there is one, repetition, once each",
            found=",".join(names) or "none",
        )
    if array.ndim != len(names):
        raise RecordingsError(
            "the array does not have the axes that --axes names",
            where=path,
            expected=f"{len(names)} axes ({', '.join(names)})",
            found=f"{array.ndim}, of the shape {array.shape}",
        )
    if "repetition" not in names:
        array, names = array[..., None], [*names, "repetition"]
    return array.transpose([names.index(axis) for axis in AXES])


def import_arrays(
    images: Path,
    responses: Path,
    out: Path,
    *,
    axes: Sequence[str],
    name: str | None = None,
    region: str | None = None,
    sites: Path | None = None,
    stimuli: Path | None = None,
    key: str | None = None,
    units: str = "unknown",
    normalised: bool = False,
    time_window_ms: tuple[float, float] | None = None,
    licence: str | None = None,
    citation: str | None = None,
    simulated: bool = False,
    visual_degrees: float | None = None,
) -> Recordings:
    """Write a recordings folder from an image folder or zip and a file with an array.

    Args:
        images: a folder or a zip of image files; they are copied byte for byte.
        responses: .npy, .npz, .mat, .h5 or .csv with real numbers that have the axes that ``axes``
            names, those of MATLAB as MATLAB shows them; NaN is missing. Presentations that are NaN
            at all sites are left out.
        out: the new folder, written whole or not at all.
        axes: ``site``, ``stimulus`` and, where there is one, ``repetition``, in the array's order.
        name: of the recordings; by default that of the file of responses.
        region: of all sites; or ``sites``, a CSV with site_id and region in the order of the axis.
        stimuli: a CSV with stimulus_id and filename, and any labels, in the order of the stimulus
            axis. Without one the axis pairs with the images in the order of their file names, and
            a warning says so.
        key: the array's name in a file that holds several.
        units, normalised, time_window_ms, licence, citation, simulated, visual_degrees: see
            `Recordings`.

    Raises:
        RecordingsError, OptionError: if the parts do not fit each other; nothing is then written.
        OutputError: if ``out`` exists and is not empty.
    """
    images, responses, out = Path(images), Path(responses), Path(out)
    notes = Notes()
    facts: dict[str, Any] = {
        "licence": licence,
        "citation": citation,
        "visual_degrees": visual_degrees,
    }
    if name:
        facts["name"] = name
    opened = _read(
        responses,
        notes,
        axes=axes,
        images=images,
        region=region,
        sites=sites,
        stimuli=stimuli,
        key=key,
        units=units,
        normalised=normalised,
        time_window_ms=time_window_ms,
        simulated=simulated,
    )
    return import_parts(opened, out, facts, notes)


def _detect(path: Path) -> str | None:
    if not path.is_dir():
        return None
    found = _files(path)
    return None if found is None else f"it holds {found[0].name} and {found[1].name}"


def _files(folder: Path) -> tuple[Path, Path] | None:
    """The images and the responses of a folder that holds one of each."""
    images = [folder / name for name in _IMAGES if (folder / name).exists()]
    responses = [file for file in folder.glob("responses.*") if file.suffix.lower() in SUFFIXES]
    return (images[0], responses[0]) if len(images) == len(responses) == 1 else None


@contextmanager
def _read(
    path: Path,
    notes: Notes,
    *,
    axes: Sequence[str],
    images: Path | None = None,
    region: str | None = None,
    sites: Path | None = None,
    stimuli: Path | None = None,
    key: str | None = None,
    units: str = "unknown",
    normalised: bool = False,
    time_window_ms: tuple[float, float] | None = None,
    simulated: bool = False,
) -> Iterator[Parts]:
    """Read images and an array, or a folder that holds both; see `import_arrays`."""
    name = path.stem
    if path.is_dir() and (found := _files(path)) is not None:
        name = path.resolve().name
        images, path = images or found[0], found[1]
    if images is None:
        raise OptionError(
            "the images are not named",
            where="--images",
            expected="a folder or a zip of images, as: recordings import IMAGES RESPONSES --axes ...",
            found="none",
        )
    array = to_standard_axes(read_array(path, key), axes, path)
    n_stimuli, n_repetitions, n_sites = array.shape
    with open_images(images) as source:
        shown = _stimuli(source, stimuli)
        _check_shape(array.shape, len(shown.ids), shown.where, axes, path)
        site_ids, regions, site_labels = _sites(n_sites, region, sites, path)
        with np.errstate(over="ignore"):  # becomes infinite, which is reported as such
            presentations = array.reshape(-1, n_sites).astype(np.float32)
        recorded = ~np.isnan(presentations).all(axis=1)
        recordings = Recordings(
            name=name,
            stimulus_ids=shown.ids,
            stimulus_paths=tuple(map(Path, shown.filenames)),
            stimulus_labels=shown.labels,
            site_ids=site_ids,
            regions=regions,
            site_labels=site_labels,
            responses=presentations[recorded],
            presentation_stimulus=np.repeat(np.arange(n_stimuli), n_repetitions)[recorded],
            repetition=np.tile(np.arange(n_repetitions, dtype=np.int32), n_stimuli)[recorded],
            units=units,
            normalised=normalised,
            time_window_ms=time_window_ms,
            simulated=simulated,
            provenance={
                "importer": "arrays",
                "images": images.name,
                "responses": {"file": path.name, "sha256": sha256_of_file(path)},
                "key": key,
                "axes": list(axes),
                "stimulus_order": shown.order,
                "n_empty_presentations": int((~recorded).sum()),
            },
        )
        yield Parts(recordings, source, Sources(shown.where, sites, path))


@dataclass(frozen=True)
class _Stimuli:
    """The stimuli in the order of the stimulus axis, and where that order comes from."""

    ids: tuple[str, ...]
    filenames: tuple[str, ...]
    labels: dict[str, tuple[str, ...]]
    where: Path
    order: str


def _stimuli(source: ImageSource, table_path: Path | None) -> _Stimuli:
    if table_path is None and source.rows is not None:
        ids, names = tuple(source.rows), tuple(source.rows.values())
        logger.warning(
            "no table of stimuli (--stimuli): the stimulus axis pairs with the %d images of %s in "
            "the order of its rows: %s",
            len(ids),
            source.path,
            some(ids),
        )
        return _Stimuli(ids, names, {}, source.path, f"rows of {source.path.name}")
    if table_path is None:
        names = tuple(source.images())
        how = "by their numbers" if counts_up(names) else "as text"
        logger.warning(
            "no table of stimuli (--stimuli): the stimulus axis pairs with the %d images of %s in "
            "the order of their file names, sorted %s: %s",
            len(names),
            source.path,
            how,
            some(names),
        )
        ids = tuple(PurePosixPath(name).stem for name in names)
        check_unique(ids, "file name without its suffix", source.path, raise_problem)
        return _Stimuli(ids, names, {}, source.path, f"file names, sorted {how}")
    table_path = Path(table_path)
    table = read_table(table_path, ("stimulus_id", "filename"))
    assert table is not None, "problems are raised"
    names = table.columns["filename"]
    check_unique(names, "filename", table_path, raise_problem)
    if outside := [name for name in names if leaves_folder(name)]:
        raise RecordingsError(
            f"{len(outside)} filenames leave the folder of images",
            where=table_path,
            expected="relative names without ..",
            found=some(outside),
        )
    if missing := [name for name in names if name not in source.names]:
        raise RecordingsError(
            f"{len(missing)} of the {len(names)} images that {table_path} names are missing",
            where=source.path,
            expected=some(missing),
            found=f"{len(source.names)} files, such as {some(sorted(source.names)[:1])}",
        )
    labels = table.further("stimulus_id", "filename")
    ids = table.columns["stimulus_id"]
    return _Stimuli(ids, names, labels, table_path, f"rows of {table_path.name}")


def _sites(
    n_sites: int, region: str | None, table_path: Path | None, responses: Path
) -> tuple[tuple[str, ...], tuple[str, ...], dict[str, tuple[str, ...]]]:
    """Ids, regions and labels of the sites, in the order of the site axis."""
    if bool(region) == (table_path is not None):
        raise OptionError(
            "the regions of the sites are not clear",
            where="--region, --sites",
            expected="exactly one of them",
            found="both" if region else "neither",
            fix="Give --region V4 if all sites are in one, else a table with --sites.",
        )
    if region:
        return tuple(f"{region}_{i:03d}" for i in range(n_sites)), (region,) * n_sites, {}
    table_path = Path(table_path or "")
    table = read_table(table_path, ("site_id", "region"))
    assert table is not None, "problems are raised"
    ids = table.columns["site_id"]
    _check_length(n_sites, len(ids), "site", table_path, responses)
    return ids, table.columns["region"], table.further("site_id", "region")


def _check_shape(
    shape: tuple[int, ...], n_images: int, where: Path, axes: Sequence[str], responses: Path
) -> None:
    """Refuse a stimulus axis of another length than the images, and say where it is transposed."""
    n_stimuli, _, n_sites = shape
    if n_stimuli != n_images and n_sites == n_images:
        swap = {"site": "stimulus", "stimulus": "site"}
        raise RecordingsError(
            "the array is transposed",
            where=responses,
            expected=f"{n_images} along the stimulus axis, as many as {where.name} has",
            found=f"{n_stimuli} there, and {n_images} along the site axis",
            fix=f"Write --axes {','.join(swap.get(axis, axis) for axis in axes)}.",
        )
    _check_length(n_stimuli, n_images, "stimulus", where, responses)


def _check_length(n_axis: int, n_rows: int, axis: str, where: Path, responses: Path) -> None:
    if n_axis != n_rows:
        raise RecordingsError(
            f"the {axis} axis does not fit {where.name}",
            where=responses,
            expected=f"{n_rows} along the {axis} axis",
            found=n_axis,
            fix="Check --axes, and that no row is missing.",
        )


IMPORTER = Importer(
    "arrays",
    "a folder with images/ or images.zip and responses.npy, .npz, .mat, .h5 or .csv; or IMAGES "
    "RESPONSES --axes",
    _detect,
    _read,
)
