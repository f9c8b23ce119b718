"""NSD, the natural scenes dataset: a subject's single-trial betas and the images of the experiment.

Allen et al. (2022). A folder of betas_sessionSS.hdf5 lies in a copy of the data set's tree, where the
design, the regions and the images are found.
"""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import scipy.io

from nrp_onnx.errors import OptionError, RecordingsError
from nrp_onnx.files import sha256_of_file
from nrp_onnx.notes import Notes
from nrp_onnx.progress import progress_bar
from nrp_onnx.recordings.checks import Sources, some
from nrp_onnx.recordings.importers.algonauts_rois import PUBLIC_ROIS
from nrp_onnx.recordings.importers.encoded_images import encoded_images
from nrp_onnx.recordings.importers.hdf5 import dataset, open_hdf5
from nrp_onnx.recordings.importers.importer import Importer, Parts
from nrp_onnx.recordings.importers.nifti import read_volume
from nrp_onnx.recordings.recordings import Recordings

VISUAL_DEGREES = 8.4
CITATION = (
    "Allen et al. (2022), A massive 7T fMRI dataset to bridge cognitive neuroscience and artificial "
    "intelligence, Nature Neuroscience 25"
)
TRIALS_A_SESSION = 750
_TRIALS_A_BLOCK = 30
#: Betas are stored as whole numbers, 300 times percent signal change.
_SCALE = 300.0
_SESSION = re.compile(r"betas_session(\d\d)\.hdf5")
_DESIGN = "nsddata/experiments/nsd/nsd_expdesign.mat"
_STIMULI = "nsddata_stimuli/stimuli/nsd/nsd_stimuli.hdf5"


def _detect(path: Path) -> str | None:
    found = path.is_dir() and any(_SESSION.fullmatch(file.name) for file in path.iterdir())
    return "it holds betas_sessionSS.hdf5" if found else None


@contextmanager
def _read(
    path: Path, notes: Notes, *, images: Path | None = None, rois: Sequence[str] | None = None
) -> Iterator[Parts]:
    """Read the sessions of a subject.

    Args:
        path: nsddata_betas/ppdata/subj0N/func1pt8mm/betas_..., in a tree with nsddata.
        images: nsd_stimuli.hdf5, where it is not in that tree.
        rois: names of masks, the one that counts most first; by default all public ones there.
    """
    root, subject = _tree(path)
    sessions = sorted(file for file in path.iterdir() if _SESSION.fullmatch(file.name))
    numbers = [int(match[1]) for file in sessions if (match := _SESSION.fullmatch(file.name))]
    design = _design(root / _DESIGN, subject)
    shape, regions, labels = _regions(root, path, subject, rois)
    voxels = np.flatnonzero(regions != "")
    trials = np.concatenate(
        [np.arange(TRIALS_A_SESSION) + (number - 1) * TRIALS_A_SESSION for number in numbers]
    )
    shown = design["images"][trials]
    responses = np.empty((len(trials), len(voxels)), np.float32)
    with progress_bar("Reading the betas", len(trials)) as advance:
        for place, file in enumerate(sessions):
            rows = slice(place * TRIALS_A_SESSION, (place + 1) * TRIALS_A_SESSION)
            _read_session(file, shape, voxels, responses[rows], advance)
    valid = np.asarray(~np.isnan(responses).any(axis=0))
    if not valid.all():
        notes.say(f"{(~valid).sum()} of {len(valid)} voxels are 0 in a session and are left out")
        responses, voxels = responses[:, valid], voxels[valid]
    notes.say("betas are z-scored within each session")
    numbers_shown, stimulus = np.unique(shown, return_inverse=True)
    ids = tuple(f"nsd-{number - 1:05d}" for number in numbers_shown)
    counts: dict[int, int] = {}
    repetition = np.empty(len(trials), np.int32)
    for row, number in enumerate(shown.tolist()):
        repetition[row] = counts[number] = counts.get(number, -1) + 1
    shared = np.isin(numbers_shown, design["shared"])
    stimuli = Path(images) if images is not None else root / _STIMULI
    with open_hdf5(stimuli, "HDF5 file of images") as file:
        bricks = dataset(file, "imgBrick", stimuli)
        if bricks.ndim != 4 or bricks.shape[3] != 3 or len(bricks) < numbers_shown.max():
            raise RecordingsError(
                "imgBrick does not fit the design",
                where=stimuli,
                expected=f"{numbers_shown.max()} or more images x height x width x 3",
                found=bricks.shape,
            )
        recordings = Recordings(
            name=f"nsd-{subject}",
            stimulus_ids=ids,
            stimulus_paths=tuple(Path(f"{name}.png") for name in ids),
            stimulus_labels={"split": tuple(np.where(shared, "test", "train").tolist())},
            site_ids=tuple(f"{subject}_{voxel:07d}" for voxel in voxels),
            regions=tuple(regions[voxels].tolist()),
            site_labels={
                "animal": (subject,) * len(voxels),
                **{name: tuple(texts[voxels].tolist()) for name, texts in labels.items()},
            },
            responses=responses,
            presentation_stimulus=stimulus.astype(np.int64),
            repetition=repetition,
            units="beta, z-scored in each session",
            normalised=True,
            citation=CITATION,
            visual_degrees=VISUAL_DEGREES,
            provenance={
                "importer": "nsd",
                "betas": path.name,
                "sessions": numbers,
                "design_sha256": sha256_of_file(root / _DESIGN),
                "rois": list(labels),
                "n_voxels_left_out": int((~valid).sum()),
                "split": "test: the shared images",
            },
        )
        source = encoded_images(
            stimuli,
            [f"{name}.png" for name in ids],
            lambda name: np.asarray(bricks[int(Path(name).stem.removeprefix("nsd-"))]),
        )
        yield Parts(recordings, source, Sources(root / _DESIGN, path, path))


def _tree(path: Path) -> tuple[Path, str]:
    """The root of the data set, and the subject."""
    resolved = path.resolve()
    root = next((p.parent for p in resolved.parents if p.name == "nsddata_betas"), None)
    subject = next((part for part in resolved.parts if re.fullmatch(r"subj0\d", part)), None)
    if root is None or subject is None:
        raise RecordingsError(
            "this folder is in no tree of NSD",
            where=path,
            expected="nsddata_betas/ppdata/subj0N/func1pt8mm/betas_...",
            found=resolved,
            fix="Keep the folders of NSD as they were downloaded.",
        )
    return root, subject


def _design(path: Path, subject: str) -> dict[str, np.ndarray]:
    """The image of each trial of a subject, and the shared images, counted from 1."""
    if not path.is_file():
        raise RecordingsError("no such file", where=path, expected="the design of NSD")
    try:
        content: dict[str, Any] = scipy.io.loadmat(
            path, variable_names=["masterordering", "subjectim", "sharedix"]
        )
        order = content["masterordering"].ravel().astype(np.int64)
        images = content["subjectim"].astype(np.int64)
        chosen = images[int(subject[-2:]) - 1][order - 1]
        return {"images": chosen, "shared": content["sharedix"].ravel().astype(np.int64)}
    # The reader of scipy meets damage in many ways, among them IndexError and zlib.error.
    except Exception as error:
        raise RecordingsError(
            "this design cannot be read",
            where=path,
            expected="masterordering, subjectim (8 x 10000) and sharedix",
            found=f"{type(error).__name__}: {error}",
        ) from None


def _regions(
    root: Path, path: Path, subject: str, chosen: Sequence[str] | None
) -> tuple[tuple[int, ...], np.ndarray, dict[str, np.ndarray]]:
    """The shape of volumes, the region of each voxel (x, y, z, the last fastest), each mask's name."""
    folder = root / "nsddata" / "ppdata" / subject / path.resolve().parent.name / "roi"
    there = [name for name in PUBLIC_ROIS if (folder / f"{name}.nii.gz").is_file()]
    names = list(chosen) if chosen is not None else there
    if not names or set(names) - set(there):
        raise OptionError(
            "there are no such masks" if names else "there are no masks of regions",
            where="--rois" if chosen else folder,
            expected=f"some of {', '.join(there or PUBLIC_ROIS)} as .nii.gz",
            found=some(sorted(set(names) - set(there))) or "none",
        )
    masks = {name: read_volume(folder / f"{name}.nii.gz") for name in names}
    shape = masks[names[0]].shape
    labels = {}
    for name, mask in masks.items():
        if mask.shape != shape:
            raise RecordingsError(
                "the masks are of different volumes", where=folder, expected=shape, found=mask.shape
            )
        texts = np.full(mask.size, "", object)
        for number, region in PUBLIC_ROIS[name].items():
            texts[mask.ravel() == number] = region
        labels[name] = texts
    regions = labels[names[0]].copy()
    for name in names[1:]:
        regions = np.where(regions == "", labels[name], regions)
    if not (regions != "").any():
        raise RecordingsError(
            "no voxel is in a region", where=folder, expected=f"numbers over 0 in {some(names)}"
        )
    return shape, regions, labels


def _read_session(
    path: Path, shape: tuple[int, ...], voxels: np.ndarray, out: np.ndarray, advance: Any
) -> None:
    """Betas of a session, z-scored a voxel; NaN for voxels that never vary."""
    with open_hdf5(path) as file:
        betas = dataset(file, "betas", path)
        expected = (TRIALS_A_SESSION, *shape[::-1])
        if betas.shape != expected:
            raise RecordingsError(
                "betas are transposed" if betas.shape == expected[::-1] else "betas do not fit",
                where=path,
                expected=f"trials x z x y x x, {expected}, as the masks have",
                found=betas.shape,
            )
        # The file's axes are those of the masks in reverse.
        places = np.ravel_multi_index(np.unravel_index(voxels, shape)[::-1], shape[::-1])
        for start in range(0, TRIALS_A_SESSION, _TRIALS_A_BLOCK):
            rows = slice(start, start + _TRIALS_A_BLOCK)
            block = betas[rows]
            out[rows] = block.reshape(len(block), -1)[:, places] / _SCALE
            advance(len(block))
    deviation = out.std(axis=0, dtype=np.float64)
    out -= out.mean(axis=0, dtype=np.float64).astype(np.float32)
    out /= np.where(deviation > 0, deviation, np.nan).astype(np.float32)


IMPORTER = Importer(
    "nsd", "a folder of NSD with betas_sessionSS.hdf5, in a tree with nsddata", _detect, _read
)
