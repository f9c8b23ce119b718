"""LAION-fMRI: a subject's single-trial betas of GLMsingle, in the BIDS tree of the data set.

derivatives/glmsingle-tedana/sub-XX/ses-YY/func holds a series of betas and a table of its trials;
derivatives/rois/sub-XX holds masks. Splits are JSON files of the data set's Python package.
"""

import csv
import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import msgspec
import numpy as np

from nrp_onnx.errors import OptionError, RecordingsError
from nrp_onnx.notes import Notes
from nrp_onnx.progress import progress_bar
from nrp_onnx.recordings.checks import Sources, some
from nrp_onnx.recordings.image_files import open_images
from nrp_onnx.recordings.importers.importer import Importer, Parts
from nrp_onnx.recordings.importers.nifti import nifti_shape, read_series, read_volume
from nrp_onnx.recordings.importers.stimulus_set import ImageNames
from nrp_onnx.recordings.recordings import Recordings

VISUAL_DEGREES = 9.2
_BETAS, _TRIALS = "*_desc-SingletrialBetas_statmap.nii.gz", "*_desc-SingletrialBetas_trials.tsv"
_ROI = re.compile(r"label-([A-Za-z0-9-]+)(?:_.*)?_mask\.nii\.gz")


def _detect(path: Path) -> str | None:
    found = path.is_dir() and any(path.glob(f"ses-*/func/{_TRIALS}"))
    return "it holds ses-YY/func with tables of single trials" if found else None


@contextmanager
def _read(
    path: Path,
    notes: Notes,
    *,
    images: Path,
    rois: Sequence[str],
    splits: Path | None = None,
) -> Iterator[Parts]:
    """Read the sessions of a subject.

    Args:
        path: derivatives/glmsingle-tedana/sub-XX.
        images: the images, by the names in the column ``label`` of the trials.
        rois: labels of masks in derivatives/rois/sub-XX, the one that counts most first.
        splits: a JSON file of splits, or a folder of them, as the data set's package has.
    """
    subject = path.resolve().name
    sessions = _sessions(path)
    shape = nifti_shape(sessions[0].betas)[:3]
    regions = _regions(path.resolve().parents[1] / "rois" / subject, rois, shape)
    voxels = np.flatnonzero(regions != "")
    responses = np.empty((sum(len(s.labels) for s in sessions), len(voxels)), np.float32)
    start = 0
    with progress_bar("Reading the betas", len(responses)) as advance:
        for session in sessions:
            rows = responses[start : start + len(session.labels)]
            _read_session(session, shape, voxels, rows, advance)
            start += len(session.labels)
    valid = np.asarray(~np.isnan(responses).any(axis=0))
    if not valid.all():
        notes.say(
            f"{(~valid).sum()} of {len(valid)} voxels never vary in a session and are left out"
        )
        responses, voxels = responses[:, valid], voxels[valid]
    notes.say("betas are z-scored within each session")
    shown = [label for session in sessions for label in session.labels]
    labels = list(dict.fromkeys(shown))
    with open_images(images) as source:
        names = ImageNames(source)
        files = {label: names.find(label) or names.find_stem(label) for label in labels}
        if missing := [label for label, file in files.items() if file is None]:
            raise RecordingsError(
                f"{len(missing)} of the {len(labels)} images of the trials are missing",
                where=source.path,
                expected=some(missing),
                found=f"{len(source.names)} files, such as {some(sorted(source.names)[:1])}",
            )
        ids = {label: PurePosixPath(label).stem for label in labels}
        places = {label: place for place, label in enumerate(labels)}
        counts: dict[str, int] = {}
        repetition = np.empty(len(shown), np.int32)
        for row, label in enumerate(shown):
            repetition[row] = counts[label] = counts.get(label, -1) + 1
        recordings = Recordings(
            name=f"laion-fmri-{subject}",
            stimulus_ids=tuple(ids[label] for label in labels),
            stimulus_paths=tuple(Path(str(files[label])) for label in labels),
            stimulus_labels={},
            site_ids=tuple(f"{subject}_{voxel:07d}" for voxel in voxels),
            regions=tuple(regions[voxels].tolist()),
            site_labels={"animal": (subject,) * len(voxels)},
            responses=responses,
            presentation_stimulus=np.array([places[label] for label in shown], np.int64),
            repetition=repetition,
            units="beta, z-scored in each session",
            normalised=True,
            visual_degrees=VISUAL_DEGREES,
            provenance={
                "importer": "laion_fmri",
                "sessions": [session.betas.parent.parent.name for session in sessions],
                "rois": list(rois),
                "images": Path(images).name,
                "splits": None if splits is None else Path(splits).name,
                "n_voxels_left_out": int((~valid).sum()),
            },
        )
        named = {} if splits is None else _splits(Path(splits), recordings.stimulus_ids, notes)
        yield Parts(recordings, source, Sources(path, path, path), splits=named)


@dataclass(frozen=True)
class _Session:
    betas: Path
    labels: list[str]


def _sessions(path: Path) -> list[_Session]:
    """The sessions in their order, each with the image of every trial."""
    found = []
    for table in sorted(path.glob(f"ses-*/func/{_TRIALS}")):
        series = sorted(table.parent.glob(_BETAS))
        if len(series) != 1:
            raise RecordingsError(
                "the session has no one series of betas",
                where=table.parent,
                expected=_BETAS,
                found=some(file.name for file in series) or "none",
            )
        with table.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file, delimiter="\t"))
        if not rows or not all(row.get("label") for row in rows):
            raise RecordingsError(
                "the table does not name the image of each trial",
                where=table,
                expected="a column label, filled in each row",
                found=some(map(str, rows[0])) if rows else "no row",
            )
        shape = nifti_shape(series[0])
        if len(shape) != 4 or shape[3] != len(rows):
            raise RecordingsError(
                "the betas do not fit their trials",
                where=series[0],
                expected=f"x, y, z and {len(rows)} trials, as {table.name}",
                found=shape,
            )
        found.append(_Session(series[0], [row["label"] for row in rows]))
    if not found:
        raise RecordingsError(
            "there are no sessions", where=path, expected=f"ses-YY/func/{_TRIALS}", found="none"
        )
    return found


def _regions(folder: Path, rois: Sequence[str], shape: tuple[int, ...]) -> np.ndarray:
    """The region of each voxel: that of the first mask that has it, else empty."""
    there = {
        match[1]: file
        for file in sorted(folder.rglob("*_mask.nii.gz"))
        if (match := _ROI.search(file.name))
    }
    if unknown := [name for name in rois if name not in there]:
        raise OptionError(
            "there is no such mask",
            where="--rois",
            expected=f"some of {', '.join(there) or f'label-NAME_mask.nii.gz in {folder}'}",
            found=", ".join(unknown),
        )
    regions = np.full(int(np.prod(shape)), "", object)
    for name in rois:
        mask = read_volume(there[name])
        if mask.shape != shape:
            raise RecordingsError(
                "the mask is of another volume than the betas",
                where=there[name],
                expected=shape,
                found=mask.shape,
            )
        regions[(regions == "") & (mask.ravel() > 0)] = name
    if not (regions != "").any():
        raise RecordingsError("no voxel is in a region", where=folder, found=f"0 in {some(rois)}")
    return regions


def _read_session(
    session: _Session, shape: tuple[int, ...], voxels: np.ndarray, out: np.ndarray, advance: Any
) -> None:
    """Betas of a session, z-scored a voxel; NaN for voxels that never vary."""
    for row, volume in enumerate(read_series(session.betas)):
        if volume.shape != shape:
            raise RecordingsError(
                "the sessions are of different volumes",
                where=session.betas,
                expected=shape,
                found=volume.shape,
            )
        out[row] = volume.ravel()[voxels]
        advance(1)
    deviation = out.std(axis=0, dtype=np.float64)
    out -= out.mean(axis=0, dtype=np.float64).astype(np.float32)
    out /= np.where(deviation > 0, deviation, np.nan).astype(np.float32)


class _Variant(msgspec.Struct):
    train_ids: list[str]
    test_ids: list[str]


class _Split(msgspec.Struct):
    name: str
    variants: list[_Variant]
    pool: str = ""


def _splits(path: Path, ids: Sequence[str], notes: Notes) -> dict[str, dict[str, list[str]]]:
    """Splits by name, with the images that were shown only."""
    known = set(ids)
    named: dict[str, dict[str, list[str]]] = {}
    for file in sorted(path.rglob("*.json")) if path.is_dir() else [path]:
        try:
            split = msgspec.convert(json.loads(file.read_text(encoding="utf-8")), _Split)
        except (OSError, ValueError) as error:
            raise RecordingsError(
                "this is no split",
                where=file,
                expected='{"name": ..., "pool": ..., "variants": [{"train_ids", "test_ids"}]}',
                found=error,
            ) from None
        for number, variant in enumerate(split.variants):
            name = "_".join(filter(None, (split.name, split.pool if path.is_dir() else "")))
            name += f"_{number}" if len(split.variants) > 1 else ""
            parts = {"train": variant.train_ids, "test": variant.test_ids}
            found = {
                part: [stem for label in labels if (stem := PurePosixPath(label).stem) in known]
                for part, labels in parts.items()
            }
            n_lost = sum(map(len, parts.values())) - sum(map(len, found.values()))
            if not all(found.values()):
                notes.say(f"the split {name} is left out: its train or test images were not shown")
                continue
            if n_lost:
                notes.say(f"{n_lost} images of the split {name} were not shown to this subject")
            if name in named:
                raise RecordingsError(
                    f"two splits are named {name}", where=path, expected="one of each name"
                )
            named[name] = found
    if not named:
        raise RecordingsError(
            "there is no split of these images", where=path, expected="ids of the images shown"
        )
    return named


IMPORTER = Importer(
    "laion_fmri",
    "a subject's folder of glmsingle-tedana with ses-YY/func/*_desc-SingletrialBetas_trials.tsv",
    _detect,
    _read,
)
