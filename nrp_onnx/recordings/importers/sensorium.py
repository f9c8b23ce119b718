"""Sensorium 2022: static scans of mouse visual cortex, a folder or zip named static*.

data/{images,responses}/N.npy hold trial N; meta/trials and meta/neurons describe trials and neurons
(Willeke et al. 2022). The tiers of the trials are a fixed split.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path, PurePosixPath

import numpy as np

from nrp_onnx.errors import RecordingsError
from nrp_onnx.notes import Notes
from nrp_onnx.progress import progress_bar
from nrp_onnx.recordings.checks import Sources, some
from nrp_onnx.recordings.image_files import ImageSource, open_images
from nrp_onnx.recordings.importers.encoded_images import encoded_images
from nrp_onnx.recordings.importers.importer import Importer, Parts
from nrp_onnx.recordings.recordings import Recordings

TIERS, IMAGE_IDS, UNITS = (
    "meta/trials/tiers.npy",
    "meta/trials/frame_image_id.npy",
    "meta/neurons/unit_ids.npy",
)
CITATION = (
    "Willeke et al. (2022), The Sensorium competition on predicting large-scale mouse primary "
)
CITATION += "visual cortex activity, arXiv:2206.08666"
#: The part of the split that each tier is; others have no published responses.
_SPLIT = {"train": "train", "validation": "train", "test": "test", "final_test": "test"}
_NAME = re.compile(r"static(\d+)-(\d+)-(\d+)")


def _detect(path: Path) -> str | None:
    if path.is_dir():
        found = (path / TIERS).is_file() and (path / "data" / "images").is_dir()
        return f"it holds {TIERS} and data/images" if found else None
    return "its name begins with static" if _is_zip(path) else None


def _is_zip(path: Path) -> bool:
    return path.is_file() and path.suffix == ".zip" and path.name.startswith("static")


@contextmanager
def _read(
    path: Path, notes: Notes, *, region: str | None = None, animal: str | None = None
) -> Iterator[Parts]:
    """Read a scan.

    Args:
        region: of all neurons, instead of V1.
        animal: instead of the one of the folder's name.
    """
    with open_images(path) as source:
        tiers = _load(source, TIERS)
        image_ids = _load(source, IMAGE_IDS)
        unit_ids = _load(source, UNITS)
        _check_trials(tiers, image_ids, unit_ids, source)
        trials, hidden = _trials(tiers, source, notes)
        responses = np.empty((len(trials), len(unit_ids)), np.float32)
        first: dict[str, int] = {}
        with progress_bar("Reading the trials", len(trials)) as advance:
            for row, trial in enumerate(trials):
                responses[row] = _responses(source, trial, len(unit_ids))
                _check_same_image(source, str(image_ids[trial]), trial, first)
                advance(1)
        shown = [str(image_ids[trial]) for trial in trials]
        ids = tuple(first)
        places = {name: place for place, name in enumerate(ids)}
        tier_of, split = _parts_of_split(ids, shown, [str(tiers[trial]) for trial in trials], path)
        counts: dict[str, int] = {}
        repetition = np.empty(len(trials), np.int32)
        for row, name in enumerate(shown):
            repetition[row] = counts[name] = counts.get(name, -1) + 1
        match = _NAME.match(path.resolve().name)
        animal = animal or (match[1] if match else "")
        session = "-".join(match.groups()) if match else path.resolve().stem
        names = {f"{name}.png": trial for name, trial in first.items()}
        images = encoded_images(
            path, tuple(names), lambda name: _load(source, f"data/images/{names[name]}.npy")
        )
        n = len(unit_ids)
        notes.say(
            "trials of the tier validation count as train: choices are made within the training part"
        )
        recordings = Recordings(
            name=f"sensorium-{session}",
            stimulus_ids=ids,
            stimulus_paths=tuple(Path(f"{name}.png") for name in ids),
            stimulus_labels={"tier": tier_of, "split": split},
            site_ids=tuple(f"{session}_{unit}" for unit in unit_ids.tolist()),
            regions=(region or "V1",) * n,
            site_labels={"animal": (animal,) * n, "session": (session,) * n},
            responses=responses,
            presentation_stimulus=np.array([places[name] for name in shown], np.int64),
            repetition=repetition,
            units="calcium activity",
            citation=CITATION,
            provenance={
                "importer": "sensorium",
                "scan": path.name,
                "n_trials_left_out": hidden,
                "split": _SPLIT,
            },
        )
        yield Parts(recordings, images, Sources(path, path, path))


def _load(source: ImageSource, name: str) -> np.ndarray:
    if name not in source.names:
        raise RecordingsError(
            f"the scan has no {name}",
            where=source.path,
            expected=f"data/images, data/responses, {TIERS}, {IMAGE_IDS}, {UNITS}",
            found=f"{len(source.names)} files, such as {some(sorted(source.names)[:1])}",
        )
    try:
        array: np.ndarray = np.load(BytesIO(source.read(name)), allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise RecordingsError(
            "this array cannot be read",
            where=f"{source.path}, {name}",
            expected="a whole .npy file without pickled objects",
            found=error,
        ) from None
    return array


def _check_trials(
    tiers: np.ndarray, image_ids: np.ndarray, unit_ids: np.ndarray, source: ImageSource
) -> None:
    n_files = sum(1 for name in source.names if PurePosixPath(name).parent.as_posix() == _RESPONSES)
    if not (tiers.ndim == image_ids.ndim == unit_ids.ndim == 1) or not (
        len(tiers) == len(image_ids) == n_files
    ):
        raise RecordingsError(
            "the trials do not fit each other",
            where=source.path,
            expected=f"as many {TIERS} and {IMAGE_IDS} as files in {_RESPONSES}",
            found=f"the shapes {tiers.shape}, {image_ids.shape}, and {n_files} files",
        )


_RESPONSES = "data/responses"


def _trials(tiers: np.ndarray, source: ImageSource, notes: Notes) -> tuple[list[int], int]:
    """The trials whose responses are published, and how many others there are."""
    known = [trial for trial, tier in enumerate(tiers.tolist()) if str(tier) in _SPLIT]
    left_out = len(tiers) - len(known)
    if left_out:
        strange = sorted({str(tier) for tier in tiers.tolist()} - set(_SPLIT))
        notes.say(f"{left_out} trials of the tiers {some(strange)} are left out")
    if not known:
        raise RecordingsError(
            "no trial is in a tier that is known",
            where=f"{source.path}, {TIERS}",
            expected=", ".join(_SPLIT),
            found=some(sorted({str(tier) for tier in tiers.tolist()})) or "none",
        )
    return known, left_out


def _responses(source: ImageSource, trial: int, n_units: int) -> np.ndarray:
    name = f"{_RESPONSES}/{trial}.npy"
    responses = _load(source, name)
    if responses.shape != (n_units,) or responses.dtype.kind not in "iuf":
        raise RecordingsError(
            "the responses of a trial do not fit",
            where=f"{source.path}, {name}",
            expected=f"{n_units} numbers, one a unit of {UNITS}",
            found=f"{responses.dtype} {responses.shape}",
        )
    return responses


def _check_same_image(source: ImageSource, image: str, trial: int, first: dict[str, int]) -> None:
    """Refuse trials of one image id that show different images."""
    if image not in first:
        first[image] = trial
        return
    names = [f"data/images/{place}.npy" for place in (first[image], trial)]
    if not np.array_equal(_load(source, names[0]), _load(source, names[1])):
        raise RecordingsError(
            f"two images have the id {image!r}",
            where=f"{source.path}, {IMAGE_IDS}",
            expected=f"one image in {' and '.join(names)}",
            found="other pixels",
            fix="The trials are in another order than their images.",
        )


def _parts_of_split(
    ids: tuple[str, ...], shown: list[str], tiers: list[str], path: Path
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The tier and the part of the split of each image."""
    tier_of: dict[str, set[str]] = {}
    for name, tier in zip(shown, tiers, strict=True):
        tier_of.setdefault(name, set()).add(tier)
    both = [name for name in ids if len({_SPLIT[tier] for tier in tier_of[name]}) > 1]
    if both:
        raise RecordingsError(
            f"{len(both)} images are shown in trials of both train and test",
            where=f"{path}, {TIERS}",
            expected="each image in one part",
            found=some(both),
        )
    joined = tuple("+".join(sorted(tier_of[name])) for name in ids)
    return joined, tuple(_SPLIT[next(iter(tier_of[name]))] for name in ids)


IMPORTER = Importer(
    "sensorium",
    f"a folder or zip static* with data/images, data/responses and {TIERS}",
    _detect,
    _read,
)
