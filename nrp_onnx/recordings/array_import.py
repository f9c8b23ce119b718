"""Makes a recordings folder from images and an array of responses whose axes the user names."""

import logging
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import numpy as np

from nrp_onnx.errors import OptionError, RecordingsError
from nrp_onnx.files import sha256_of_file
from nrp_onnx.recordings.folder import first_duplicate, problems_of, read_table, save_recordings
from nrp_onnx.recordings.types import Recordings
from nrp_onnx.recordings.validation import image_problem, unreadable_image

AXES = ("site", "stimulus", "repetition")
_IMAGES = frozenset((".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".gif"))

logger = logging.getLogger("nrp_onnx")


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
) -> Recordings:
    """Write a recordings folder from an image folder or zip and a .npy or .npz array.

    Args:
        images: a folder or a zip of image files.
        responses: numbers with the axes that ``axes`` names, NaN = missing.
        axes: ``site``, ``stimulus`` and, where there is one, ``repetition``, in the array's order.
        region: of all sites; or ``sites``, a CSV with site_id and region in the order of the axis.
        stimuli: a CSV with stimulus_id and filename in the order of the stimulus axis. Without
            one the axis pairs with the images in the order of their file names, and that is said.
        key: the array's name in an .npz file that holds several.

    Raises:
        RecordingsError, OptionError: if the parts do not fit each other; nothing is then written.
    """
    array = _to_standard_axes(_read_array(responses, key), axes, responses)
    n_sites, n_stimuli, n_repetitions = array.shape
    with tempfile.TemporaryDirectory() as scratch:
        files = _image_files(images, Path(scratch))
        provenance = {
            "responses": {"file": responses.name, "sha256": sha256_of_file(responses)},
            "axes": list(axes),
            "stimulus_order": stimuli.name if stimuli else "file names",
        }
        if stimuli is None:
            names = sorted(files)
            ids, labels = [Path(name).stem for name in names], {}
            logger.warning(
                "no --stimuli table: the stimulus axis pairs with the images in file-name order"
            )
        else:
            table = read_table(stimuli, ("stimulus_id", "filename"))
            ids, names = table.columns["stimulus_id"], table.columns["filename"]
            labels = table.further("stimulus_id", "filename")
            if absent := [name for name in names if name not in files]:
                raise RecordingsError(
                    f"{len(absent)} images that {stimuli} names are missing",
                    where=images,
                    expected=repr(absent[0]),
                    found=f"{len(files)} images",
                )
        if len(ids) != n_stimuli:
            raise RecordingsError(
                "the stimulus axis does not fit the stimuli",
                where=responses,
                expected=f"{len(ids)} stimuli (those of {stimuli or images})",
                found=f"{n_stimuli} in an array of shape {array.shape} (site, stimulus, repetition)",
            )
        if (twice := first_duplicate(ids)) is not None:
            raise RecordingsError(
                "a stimulus_id comes twice", where=stimuli or images, found=repr(twice)
            )
        if (twice := first_duplicate([Path(name).name for name in names])) is not None:
            raise RecordingsError("a file name comes twice", where=images, found=repr(twice))
        for file in names:
            if reason := image_problem(files[file]):
                raise unreadable_image(files[file], reason)
        site_ids, regions, site_labels = _sites(n_sites, region, sites, responses)
        presentations = array.transpose(1, 2, 0).reshape(-1, n_sites)
        recorded = ~np.isnan(presentations).all(axis=1)
        recordings = Recordings(
            name=name or responses.stem,
            stimulus_ids=tuple(ids),
            stimulus_paths=tuple(files[file] for file in names),
            stimulus_labels=labels,
            site_ids=site_ids,
            regions=regions,
            site_labels=site_labels,
            responses=presentations[recorded].astype(np.float32),
            presentation_stimulus=np.repeat(np.arange(n_stimuli), n_repetitions)[recorded],
            repetition=np.tile(np.arange(n_repetitions, dtype=np.int32), n_stimuli)[recorded],
            units=units,
            normalised=normalised,
            time_window_ms=time_window_ms,
            licence=licence,
            citation=citation,
            provenance=provenance,
        )
        for problem in problems_of(recordings, images):
            if "leaves the folder" not in problem.what:  # the images are copied into it below
                raise RecordingsError(problem.what, where=responses, found=problem.found)
        save_recordings(recordings, out)
    return recordings


def _read_array(path: Path, key: str | None) -> np.ndarray:
    if not path.is_file():
        raise RecordingsError("no such file", where=path, expected="a .npy or .npz array")
    try:
        loaded = np.load(path, allow_pickle=False)
    except (ValueError, EOFError, OSError, zipfile.BadZipFile) as error:
        raise RecordingsError(
            "this array cannot be read",
            where=path,
            expected="a whole .npy or .npz file of numbers, without pickled objects",
            found=error,
        ) from None
    if isinstance(loaded, np.ndarray):
        array = loaded
    else:
        names = loaded.files
        if key is None and len(names) != 1:
            raise OptionError(
                "the file holds several arrays", where=path, found=", ".join(names), fix="Name one with --key."
            )
        if key is not None and key not in names:
            raise OptionError(
                "no such array", where=path, expected=f"one of {', '.join(names)}", found=repr(key)
            )
        try:
            array = loaded[key or names[0]]
        except ValueError as error:
            raise RecordingsError("this array cannot be read", where=path, found=error) from None
    if not np.issubdtype(array.dtype, np.number) or np.iscomplexobj(array):
        raise RecordingsError(
            "these are no responses", where=path, expected="real numbers", found=array.dtype
        )
    return array


def _to_standard_axes(array: np.ndarray, axes: Sequence[str], path: Path) -> np.ndarray:
    """The array as (site, stimulus, repetition); without repetitions there is one."""
    names = list(axes)
    if set(names) - set(AXES) or len(set(names)) != len(names) or not {"site", "stimulus"} <= set(names):
        raise OptionError(
            "these are no axes of responses",
            where="--axes",
            expected="site, stimulus and, where there is one, repetition, once each",
            found=",".join(names),
        )
    if array.ndim != len(names):
        raise RecordingsError(
            "the array does not have the axes that --axes names",
            where=path,
            expected=f"{len(names)} axes ({','.join(names)})",
            found=f"shape {array.shape}",
        )
    if "repetition" not in names:
        array, names = array[..., None], [*names, "repetition"]
    return array.transpose([names.index(axis) for axis in AXES])


def _image_files(images: Path, scratch: Path) -> dict[str, Path]:
    """Image files by their path inside the folder or zip; a zip is unpacked into scratch."""
    if images.is_dir():
        root = images
    elif images.is_file() and zipfile.is_zipfile(images):
        root = scratch
        _unpack(images, scratch)
    else:
        raise RecordingsError(
            "no such images",
            where=images,
            expected="a folder or a zip of images",
            found="a file of another kind" if images.exists() else "nothing",
        )
    found = {
        path.relative_to(root).as_posix(): path
        for path in sorted(root.rglob("*"))
        if path.suffix.lower() in _IMAGES and not path.name.startswith("._")
    }
    if len({len(PurePosixPath(name).parts) for name in found}) == 1 and all("/" in n for n in found):
        tops = {name.split("/")[0] for name in found}
        if len(tops) == 1:  # one folder that holds all: the table names the files inside it
            found.update({name.split("/", 1)[1]: path for name, path in list(found.items())})
            found = {name: path for name, path in found.items() if name.split("/")[0] not in tops}
    if not found:
        raise RecordingsError("there are no images", where=images, expected=", ".join(sorted(_IMAGES)))
    return found


def _unpack(archive: Path, scratch: Path) -> None:
    with zipfile.ZipFile(archive) as file:
        for entry in file.namelist():
            parts = PurePosixPath(entry.replace("\\", "/"))
            if parts.is_absolute() or ".." in parts.parts or ":" in parts.parts[0]:
                raise RecordingsError(
                    "the zip has an entry that leaves its folder", where=archive, found=repr(entry)
                )
        try:
            file.extractall(scratch, [n for n in file.namelist() if not n.startswith("__MACOSX")])
        except (zipfile.BadZipFile, EOFError, OSError) as error:
            raise RecordingsError("the zip is damaged", where=archive, found=error) from None


def _sites(
    n_sites: int, region: str | None, sites: Path | None, responses: Path
) -> tuple[tuple[str, ...], tuple[str, ...], dict[str, tuple[str, ...]]]:
    if (region is None) == (sites is None):
        raise OptionError(
            "the regions of the sites are not clear",
            where="--region, --sites",
            expected="exactly one of them",
            found="both" if region else "neither",
        )
    if region is not None:
        return tuple(f"{region}_{i:03d}" for i in range(n_sites)), (region,) * n_sites, {}
    assert sites is not None
    table = read_table(sites, ("site_id", "region"))
    ids = table.columns["site_id"]
    if len(ids) != n_sites:
        raise RecordingsError(
            "the site axis does not fit the sites",
            where=responses,
            expected=f"{len(ids)} sites (those of {sites})",
            found=n_sites,
        )
    return tuple(ids), tuple(table.columns["region"]), table.further("site_id", "region")
