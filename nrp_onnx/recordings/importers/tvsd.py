"""TVSD, the THINGS ventral stream spiking dataset: a monkey's folder, and images of THINGS.

Papale et al. (2025) recorded multi-unit activity of V1, V4 and IT in two macaques. Training images
were shown once, 100 test images 30 times. THINGS_normMUA.mat holds one number a channel and
presentation, averaged over a time window of its area and normalised by its authors.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path, PureWindowsPath
from typing import TYPE_CHECKING

import numpy as np

from nrp_onnx.errors import OptionError, RecordingsError
from nrp_onnx.files import sha256_of_file
from nrp_onnx.notes import Notes
from nrp_onnx.progress import progress_bar
from nrp_onnx.recordings.checks import Sources, some
from nrp_onnx.recordings.image_files import ImageSource, open_images
from nrp_onnx.recordings.importers.hdf5 import child, dataset, matlab_texts, open_hdf5
from nrp_onnx.recordings.importers.importer import Importer, Parts
from nrp_onnx.recordings.importers.stimulus_set import ImageNames
from nrp_onnx.recordings.recordings import Recordings
from nrp_onnx.statistics import pearson_r

if TYPE_CHECKING:
    import h5py

MUA, IMAGES = "THINGS_normMUA.mat", "_logs/things_imgs.mat"
CITATION = (
    "Papale, Wang, Self, Roelfsema (2025), An extensive dataset of spiking activity to reveal the "
    "syntax of the ventral stream, Neuron; Hebart et al. (2019), THINGS, PLoS ONE"
)
#: Areas by channel, counted from 0, in the order of each animal's arrays.
_AREAS = {
    "F": (("V1", 0, 512), ("IT", 512, 832), ("V4", 832, 1024)),
    "N": (("V1", 0, 512), ("V4", 512, 768), ("IT", 768, 1024)),
}
_N_CHANNELS = 1024
#: Over which the activity was averaged, in ms after onset.
_WINDOWS_MS = {"V1": (25, 125), "V4": (50, 150), "IT": (75, 175)}
_DEGREES = {"F": 18.6, "N": 17.3}
_ROWS_A_BLOCK = 1024
#: The reliabilities that the file gives are those of its own repetitions, up to rounding.
_LEAST_AGREEMENT = 0.99


def _detect(path: Path) -> str | None:
    file = path / MUA if path.is_dir() else path
    if file.name == MUA and file.is_file():
        return f"it holds {MUA}" if path.is_dir() else f"it is {MUA}"
    if path.is_dir() and any((path / f"monkey{name}" / MUA).is_file() for name in _AREAS):
        return f"it holds folders with {MUA}"
    return None


@contextmanager
def _read(path: Path, notes: Notes, *, images: Path, animal: str | None = None) -> Iterator[Parts]:
    """Read a monkey's folder.

    Args:
        path: monkeyF or monkeyN, with THINGS_normMUA.mat and _logs/things_imgs.mat.
        images: the images of THINGS, as object_images.
        animal: F or N, where the folder's name does not tell.
    """
    folder = path if path.is_dir() else path.parent
    if not (folder / MUA).is_file():
        raise RecordingsError(
            "this is no folder of one monkey",
            where=path,
            expected=f"{MUA} and {IMAGES}",
            found=some(sorted(file.name for file in folder.iterdir())) or "nothing",
            fix="Import monkeyF and monkeyN one by one, then: nrp-onnx recordings merge.",
        )
    animal = _animal(folder, animal)
    with open_images(images) as source, open_hdf5(folder / IMAGES, "MATLAB v7.3 file") as logs:
        names = ImageNames(source)
        train = _stimuli(logs, "train_imgs", folder / IMAGES, names, source)
        test = _stimuli(logs, "test_imgs", folder / IMAGES, names, source)
        with open_hdf5(folder / MUA, "MATLAB v7.3 file") as file:
            responses, n_repetitions = _responses(file, folder / MUA, len(train.ids), len(test.ids))
            reliability = _reliability(file, folder / MUA)
        n_train, n_test = len(train.ids), len(test.ids)
        _check_reliability(responses[n_train:], n_test, reliability, folder / MUA, notes)
        areas = [area for area, first, last in _AREAS[animal] for _ in range(first, last)]
        stimulus = np.concatenate(
            [np.arange(n_train), np.tile(np.arange(n_train, n_train + n_test), n_repetitions)]
        )
        repetition = np.concatenate(
            [np.zeros(n_train, np.int32), np.repeat(np.arange(n_repetitions), n_test)]
        ).astype(np.int32)
        if n_empty := int(np.isnan(responses).all(axis=1).sum()):
            notes.say(f"{n_empty} presentations of {MUA} without any response are left out")
            recorded = ~np.isnan(responses).all(axis=1)
            responses, stimulus = responses[recorded], stimulus[recorded]
            repetition = repetition[recorded]
        recordings = Recordings(
            name=f"tvsd-monkey{animal}",
            stimulus_ids=train.ids + test.ids,
            stimulus_paths=tuple(map(Path, train.filenames + test.filenames)),
            stimulus_labels={
                # Not object_name, on which folds are stratified: these are 1,854.
                "concept": train.classes + test.classes,
                "split": ("train",) * n_train + ("test",) * n_test,
            },
            site_ids=tuple(f"{animal}_{place:04d}" for place in range(_N_CHANNELS)),
            regions=tuple(areas),
            site_labels={
                "animal": (animal,) * _N_CHANNELS,
                "channel": tuple(map(str, range(_N_CHANNELS))),
            },
            responses=responses,
            presentation_stimulus=stimulus,
            repetition=repetition,
            units="multi-unit activity, normalised by its authors",
            normalised=True,
            citation=CITATION,
            visual_degrees=_DEGREES[animal],
            provenance={
                "importer": "tvsd",
                "responses": {"file": MUA, "sha256": sha256_of_file(folder / MUA)},
                "stimuli": {"file": IMAGES, "sha256": sha256_of_file(folder / IMAGES)},
                "images": Path(images).name,
                "time_windows_ms": _WINDOWS_MS,
                "n_empty_presentations": n_empty,
            },
        )
        where = Sources(folder / IMAGES, folder / MUA, folder / MUA)
        yield Parts(
            recordings, source, where, reliability, "mean correlation between two repetitions"
        )


def _animal(folder: Path, chosen: str | None) -> str:
    named = folder.resolve().name.removeprefix("monkey")
    animal = chosen or named
    if animal not in _AREAS:
        raise OptionError(
            "which monkey this is, is not known",
            where=folder if chosen is None else "--animal",
            expected=f"a folder monkey{' or monkey'.join(_AREAS)}, or --animal",
            found=animal,
            fix="Write --animal F or --animal N: their channels are in other areas.",
        )
    return animal


@dataclass(frozen=True)
class _Shown:
    """The stimuli of one part: ids, names of their images, concepts."""

    ids: tuple[str, ...]
    filenames: tuple[str, ...]
    classes: tuple[str, ...]


def _stimuli(
    logs: "h5py.File", group: str, path: Path, names: ImageNames, images: ImageSource
) -> _Shown:
    """The images of train_imgs or test_imgs, which are those of the rows of responses."""
    paths = [PureWindowsPath(text) for text in matlab_texts(logs, f"{group}/things_path", path)]
    found = [names.find(name.as_posix()) for name in paths]
    missing = [str(name) for name, file in zip(paths, found, strict=True) if file is None]
    if missing:
        raise RecordingsError(
            f"{len(missing)} of the {len(paths)} images of {group} are missing",
            where=images.path,
            expected=some(missing),
            found=f"{len(images.names)} files, such as {some(sorted(images.names)[:1])}",
            fix="Name the folder object_images of THINGS with --images.",
        )
    if child(logs, f"{group}/class", path) is None:
        classes = tuple(name.parent.name for name in paths)
    else:
        classes = matlab_texts(logs, f"{group}/class", path)
    if len(classes) != len(paths):
        raise RecordingsError(
            f"the classes of {group} do not fit its paths",
            where=path,
            expected=len(paths),
            found=len(classes),
        )
    return _Shown(
        tuple(name.stem for name in paths), tuple(file for file in found if file), classes
    )


def _responses(file: "h5py.File", path: Path, n_train: int, n_test: int) -> tuple[np.ndarray, int]:
    """Train responses, then each repetition of all test images: float32 (n_rows, 1024)."""
    train, test = dataset(file, "train_MUA", path), dataset(file, "test_MUA_reps", path)
    _check_shape(train, (n_train, _N_CHANNELS), "images x channels", path)
    n_repetitions = test.shape[0 if test.shape[-1] == _N_CHANNELS else -1] if test.ndim == 3 else 0
    _check_shape(
        test, (n_repetitions, n_test, _N_CHANNELS), "repetitions x images x channels", path
    )
    out = np.empty((n_train + n_repetitions * n_test, _N_CHANNELS), np.float32)
    with progress_bar("Reading the responses", len(out)) as advance:
        for start in range(0, n_train, _ROWS_A_BLOCK):
            rows = slice(start, min(start + _ROWS_A_BLOCK, n_train))
            out[rows] = train[rows]
            advance(rows.stop - rows.start)
        for repetition in range(n_repetitions):
            start = n_train + repetition * n_test
            out[start : start + n_test] = test[repetition]
            advance(n_test)
    return out, n_repetitions


def _check_shape(data: "h5py.Dataset", shape: tuple[int, ...], axes: str, path: Path) -> None:
    if data.dtype.kind == "f" and data.shape == shape:
        return
    turned = data.shape == shape[::-1]
    raise RecordingsError(
        f"{data.name.strip('/')} is transposed"
        if turned
        else f"{data.name.strip('/')} does not fit",
        where=path,
        expected=f"numbers of the shape {shape} in the file ({axes}), MATLAB's in reverse",
        found=f"{data.dtype} {data.shape}",
        fix="Take the file as it was published." if turned else None,
    )


def _reliability(file: "h5py.File", path: Path) -> np.ndarray:
    """The mean over pairs of repetitions of the correlations that the file gives, float64 (1024,)."""
    pairs = dataset(file, "reliab", path)
    if pairs.ndim != 2 or pairs.shape[1] != _N_CHANNELS:
        raise RecordingsError(
            "reliab does not fit",
            where=path,
            expected=f"pairs of repetitions x {_N_CHANNELS} channels",
            found=pairs.shape,
        )
    values = np.asarray(pairs[...], np.float64)
    counts = (~np.isnan(values)).sum(axis=0)
    return np.where(counts > 0, np.nansum(values, axis=0) / np.maximum(counts, 1), np.nan)


def _check_reliability(
    test: np.ndarray, n_test: int, given: np.ndarray, path: Path, notes: Notes
) -> None:
    """Warn where the reliabilities of the file are not those of its repetitions.

    Args:
        test: float32 array of shape (n_repetitions * n_test, 1024).
    """
    repetitions = test.reshape(-1, n_test, _N_CHANNELS).astype(np.float64)
    pairs = list(combinations(range(len(repetitions)), 2))
    if not pairs:
        return
    r = np.array([pearson_r(repetitions[a], repetitions[b]) for a, b in pairs])
    computed = np.nanmean(r, axis=0, where=~np.isnan(r)) if np.isfinite(r).any() else r[0]
    both = ~np.isnan(computed) & ~np.isnan(given)
    if both.sum() < 3:
        return
    agreement = float(np.corrcoef(computed[both], given[both])[0, 1])
    if not agreement >= _LEAST_AGREEMENT:
        notes.say(
            f"reliab of {path.name} is not that of test_MUA_reps: over {both.sum()} channels they "
            f"correlate by {agreement:.2f}. Channels or repetitions may be in another order"
        )


IMPORTER = Importer(
    "tvsd",
    f"a folder monkeyF or monkeyN with {MUA} and {IMAGES}",
    _detect,
    _read,
)
