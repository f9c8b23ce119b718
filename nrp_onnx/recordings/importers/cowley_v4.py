"""Sessions of macaque V4 of Cowley et al. (2023): data_V4_responses of their repository.

images/images_SESSION.zip holds image0001.jpg and so on; responses_repeat_averaged and responses_raw
hold responses_SESSION.npy, site x image and site x image x repetition. The image axis has the order
of the file names, which is not that of every zip.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

import numpy as np

from nrp_onnx.errors import OptionError, RecordingsError
from nrp_onnx.files import sha256_of_file
from nrp_onnx.notes import Notes
from nrp_onnx.recordings.checks import Sources, some
from nrp_onnx.recordings.image_files import ImageSource, open_images
from nrp_onnx.recordings.importers.algonauts_rois import load_mapped
from nrp_onnx.recordings.importers.importer import Importer, Parts
from nrp_onnx.recordings.recordings import Recordings

AVERAGED, RAW = "responses_repeat_averaged", "responses_raw"
CITATION = (
    "Cowley, Stan, Pillow, Smith (2023), Compact deep neural network models of visual cortex, "
    "bioRxiv 2023.11.22.568315"
)
#: Animals by the days of their first and last session, from the readme of the data.
_ANIMALS = (("190923", "190929", "WE"), ("201016", "210326", "PE"), ("210620", "211103", "RA"))
_RESPONSES = re.compile(r"responses_(\d{6})\.npy")
_IMAGE = re.compile(r"image(\d+)\.(?:jpg|jpeg|png)", re.IGNORECASE)


def _detect(path: Path) -> str | None:
    if path.is_dir() and (path / AVERAGED).is_dir():
        return f"it holds {AVERAGED}"
    if _RESPONSES.fullmatch(path.name) and path.parent.name in (AVERAGED, RAW) and path.is_file():
        return f"it is a session of {path.parent.name}"
    return None


@contextmanager
def _read(
    path: Path,
    notes: Notes,
    *,
    session: str | None = None,
    images: Path | None = None,
    animal: str | None = None,
) -> Iterator[Parts]:
    """Read a session; every repetition where responses_raw has it, else averages.

    Args:
        path: data_V4_responses, or a file of responses in it.
        session: its day, as 190925, where path is the folder.
        images: a folder or zip, instead of images/images_SESSION.zip.
        animal: instead of that of the published table.
    """
    if path.is_dir():
        folder, session = path, _session(path, session)
    else:
        match = _RESPONSES.fullmatch(path.name)
        folder = path.resolve().parent.parent
        session = match[1] if match else session
    responses = folder / RAW / f"responses_{session}.npy"
    if not responses.is_file():
        responses = folder / AVERAGED / f"responses_{session}.npy"
    array = load_mapped(responses)
    if array.ndim not in (2, 3):
        raise RecordingsError(
            "these are no responses of a session",
            where=responses,
            expected="an array site x image, or site x image x repetition",
            found=f"the shape {array.shape}",
        )
    archive = Path(images) if images is not None else folder / "images" / f"images_{session}.zip"
    with open_images(archive) as source:
        names = _names(source)
        _check_axes(array.shape, len(names), responses, archive)
        if array.ndim == 2:
            notes.say(f"{AVERAGED} has no repetitions: noise floor and reliability are not known")
        array = np.asarray(array, np.float32).reshape(*array.shape[:2], -1)
        n_sites, n_images, n_repetitions = array.shape
        presentations = array.transpose(1, 2, 0).reshape(-1, n_sites)
        recorded = ~np.isnan(presentations).all(axis=1)
        animal = animal or next(
            (name for first, last, name in _ANIMALS if first <= str(session) <= last), ""
        )
        recordings = Recordings(
            name=f"cowley-v4-{session}",
            # Every session numbers its images from 1.
            stimulus_ids=tuple(f"{session}_{PurePosixPath(name).stem}" for name in names),
            stimulus_paths=tuple(map(Path, names)),
            stimulus_labels={},
            site_ids=tuple(f"{session}_{place:03d}" for place in range(n_sites)),
            regions=("V4",) * n_sites,
            site_labels={"animal": (animal,) * n_sites, "session": (str(session),) * n_sites},
            responses=presentations[recorded],
            presentation_stimulus=np.repeat(np.arange(n_images), n_repetitions)[recorded],
            repetition=np.tile(np.arange(n_repetitions, dtype=np.int32), n_images)[recorded],
            units="spikes in 100 ms",
            citation=CITATION,
            provenance={
                "importer": "cowley_v4",
                "responses": {
                    "file": f"{responses.parent.name}/{responses.name}",
                    "sha256": sha256_of_file(responses),
                },
                "images": archive.name,
                "stimulus_order": "numbers of file names",
                "n_empty_presentations": int((~recorded).sum()),
            },
        )
        yield Parts(recordings, source, Sources(archive, responses, responses))


def _session(folder: Path, chosen: str | None) -> str:
    """The session that is asked for, or the only one."""
    files = [file for name in (AVERAGED, RAW) for file in (folder / name).glob("*.npy")]
    there = sorted({match[1] for file in files if (match := _RESPONSES.fullmatch(file.name))})
    session = there[0] if chosen is None and len(there) == 1 else chosen
    if session in there:
        return str(session)
    raise OptionError(
        "there is no such session" if chosen else f"the folder holds {len(there)} sessions",
        where="--session" if chosen else folder,
        expected=f"--session as one of {', '.join(there[:4])}{', ...' if len(there) > 4 else ''}",
        found=chosen,
    )


def _names(images: ImageSource) -> list[str]:
    """The images in the order of their numbers, which must be 1 to their count."""
    numbers = {
        name: int(match[1])
        for name in images.images()
        if (match := _IMAGE.fullmatch(PurePosixPath(name).name))
    }
    ordered = sorted(numbers, key=lambda name: numbers[name])
    if not ordered or [numbers[name] for name in ordered] != list(range(1, len(ordered) + 1)):
        strange = [name for name in images.images() if name not in numbers]
        raise RecordingsError(
            "the images do not name their place",
            where=images.path,
            expected="image0001.jpg, image0002.jpg and so on, without a gap",
            found=f"{len(ordered)} such images, from {some(ordered[:1])} to {some(ordered[-1:])}"
            if ordered
            else some(strange) or "no image",
        )
    return ordered


def _check_axes(shape: tuple[int, ...], n_images: int, responses: Path, archive: Path) -> None:
    if shape[1] == n_images:
        return
    turned = n_images in shape
    raise RecordingsError(
        "the responses are transposed" if turned else "the responses do not fit the images",
        where=responses,
        expected=f"site x image, with the {n_images} images of {archive.name} on the second axis",
        found=f"the shape {shape}",
        fix="Turn the axes, or import it as an array with --axes." if turned else None,
    )


IMPORTER = Importer(
    "cowley_v4",
    f"data_V4_responses with {AVERAGED} and images, or one of its responses_SESSION.npy",
    _detect,
    _read,
)
