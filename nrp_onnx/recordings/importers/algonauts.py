"""Makes a recordings folder from a subject's folder of the Algonauts 2023 challenge (NSD)."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from nrp_onnx.errors import RecordingsError
from nrp_onnx.files import sha256_of_file
from nrp_onnx.notes import Notes
from nrp_onnx.recordings.checks import Sources, check_unique, raise_problem, some
from nrp_onnx.recordings.image_files import ImageSource, open_images
from nrp_onnx.recordings.importers.algonauts_rois import Masks, load_mapped, read_masks
from nrp_onnx.recordings.importers.importer import Importer, Parts
from nrp_onnx.recordings.importers.writing import import_parts
from nrp_onnx.recordings.recordings import Recordings

_SIDES = ("lh", "rh")
_IMAGE = re.compile(r"train-(\d+)_(nsd-\d+)\.\w+")
_ROWS_A_BLOCK = 512
#: That the images of NSD filled (Allen et al. 2022).
VISUAL_DEGREES = 8.4
CITATION = (
    "Gifford et al. (2023), The Algonauts Project 2023 Challenge; Allen et al. (2022), A massive "
    "7T fMRI dataset to bridge cognitive neuroscience and artificial intelligence"
)


def import_algonauts(
    subject: Path,
    out: Path,
    *,
    rois: Sequence[str] | None = None,
    roi_names: Path | None = None,
    name: str | None = None,
    licence: str | None = None,
    citation: str | None = CITATION,
    visual_degrees: float | None = VISUAL_DEGREES,
    notes: Notes | None = None,
) -> Recordings:
    """Write a recordings folder from a folder such as subj01.

    Sites are the vertices of both hemispheres, in challenge space. A vertex's region is that of the
    first mask of ``rois`` that gives it one; vertices without any are left out, and counted. What
    every mask says is kept in sites.csv. The responses are betas, z-scored in each session and
    averaged over repetitions by their publishers: one presentation a stimulus. The test images have
    no responses and are not read.

    Args:
        subject: with training_split/training_images and training_fmri, and roi_masks.
        out: the new folder, written whole or not at all.
        rois: names of masks, by default prf-visualrois, floc-bodies, floc-faces, floc-places,
            floc-words and streams, in this order, where they are there.
        roi_names: JSON of the regions' names by number by mask, instead of the public ones.
        name: of the recordings; by default algonauts2023 and the folder's name.
        licence, citation, visual_degrees: see `Recordings`.
        notes: is told how many vertices are left out.

    Raises:
        RecordingsError, OptionError: if the files do not fit each other; nothing is then written.
        OutputError: if ``out`` exists and is not empty.
    """
    subject, out, notes = Path(subject), Path(out), notes or Notes()
    facts: dict[str, Any] = {
        "licence": licence,
        "citation": citation,
        "visual_degrees": visual_degrees,
    }
    if name:
        facts["name"] = name
    opened = _read(subject, notes, rois=rois, roi_names=roi_names)
    return import_parts(opened, out, facts, notes)


def _detect(path: Path) -> str | None:
    training = path / "training_split"
    fmri = training / "training_fmri" / "lh_training_fmri.npy"
    return "it holds training_split/training_fmri" if fmri.is_file() else None


@contextmanager
def _read(
    path: Path, notes: Notes, *, rois: Sequence[str] | None = None, roi_names: Path | None = None
) -> Iterator[Parts]:
    """Read a subject's folder; see `import_algonauts`."""
    training = path / "training_split"
    if not training.is_dir():
        raise RecordingsError(
            "this is no subject of the Algonauts 2023 challenge",
            where=path,
            expected="a folder with training_split and roi_masks",
            found="no training_split" if path.is_dir() else "no folder",
        )
    paths = {side: training / "training_fmri" / f"{side}_training_fmri.npy" for side in _SIDES}
    fmri = {side: load_mapped(file) for side, file in paths.items()}
    n_images = _check_fmri(fmri, paths)
    masks = read_masks(
        path / "roi_masks",
        {side: array.shape[1] for side, array in fmri.items()},
        rois,
        roi_names,
        notes,
    )
    with open_images(training / "training_images") as source:
        ids, filenames = _images(source, n_images)
        regions = {side: masks.regions(side) for side in _SIDES}
        kept = {side: np.flatnonzero(regions[side] != "") for side in _SIDES}
        n_kept = sum(map(len, kept.values()))
        n_left_out = sum(map(len, regions.values())) - n_kept
        if not n_kept:
            raise RecordingsError(
                "no vertex is in a region",
                where=path / "roi_masks",
                expected=f"numbers other than 0 in {', '.join(masks.names)}",
                found=f"0 for {n_left_out} vertices",
            )
        if n_left_out:
            notes.say(
                f"{n_left_out} of {n_left_out + n_kept} vertices are in no region of "
                f"{', '.join(masks.names)} and are left out"
            )
        recordings = Recordings(
            name=f"algonauts2023-{path.resolve().name}",
            stimulus_ids=ids,
            stimulus_paths=tuple(map(Path, filenames)),
            stimulus_labels={},
            site_ids=tuple(f"{side}_{place:05d}" for side in _SIDES for place in kept[side]),
            regions=tuple(regions[side][place] for side in _SIDES for place in kept[side]),
            site_labels=_site_labels(masks, kept),
            responses=_responses(fmri, kept),
            presentation_stimulus=np.arange(n_images),
            repetition=np.zeros(n_images, np.int32),
            units="beta, z-scored in each session, mean over repetitions",
            normalised=True,
            citation=CITATION,
            visual_degrees=VISUAL_DEGREES,
            provenance={
                "importer": "algonauts2023",
                "folder": path.resolve().name,
                "responses": {side: sha256_of_file(file) for side, file in paths.items()},
                "rois": list(masks.names),
                "roi_names": "public" if roi_names is None else Path(roi_names).name,
                "n_vertices_left_out": n_left_out,
            },
        )
        where = Sources(source.path, path / "roi_masks", training / "training_fmri")
        yield Parts(recordings, source, where)


def _check_fmri(fmri: dict[str, np.ndarray], paths: dict[str, Path]) -> int:
    """The number of images."""
    for side, array in fmri.items():
        if array.ndim != 2:
            raise RecordingsError(
                "these are no responses",
                where=paths[side],
                expected="an array (images, vertices)",
                found=f"the shape {array.shape}",
            )
    left, right = (len(fmri[side]) for side in _SIDES)
    if left != right:
        raise RecordingsError(
            "the hemispheres do not have the same images",
            where=paths["rh"],
            expected=f"{left} rows, as {paths['lh'].name}",
            found=right,
        )
    return left


def _images(source: ImageSource, n_images: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Ids and file names of the images in the order of the rows, which their names state."""
    matches = {name: _IMAGE.fullmatch(name) for name in source.images()}
    if strange := [name for name, match in matches.items() if match is None]:
        raise RecordingsError(
            f"{len(strange)} images do not name their row",
            where=source.path,
            expected="names such as train-0001_nsd-00013.png",
            found=some(strange),
        )
    rows = {int(match[1]): name for name, match in matches.items() if match}
    if len(rows) < len(matches) or set(rows) != set(range(1, n_images + 1)):
        wrong = sorted(set(rows) ^ set(range(1, n_images + 1)))
        raise RecordingsError(
            "the images do not fit the responses",
            where=source.path,
            expected=f"{n_images} images, train-0001 to train-{n_images:04d}, one a row",
            found=f"{len(matches)} images"
            + (f", without or beyond row {wrong[0]}" if wrong else ", two of a row"),
        )
    filenames = tuple(rows[row] for row in sorted(rows))
    ids = tuple(match[2] for name in filenames if (match := matches[name]))
    check_unique(ids, "nsd number", source.path, raise_problem)
    return ids, filenames


def _site_labels(masks: Masks, kept: dict[str, np.ndarray]) -> dict[str, tuple[str, ...]]:
    return {
        "hemisphere": tuple(side for side in _SIDES for _ in kept[side]),
        "vertex": tuple(str(place) for side in _SIDES for place in kept[side]),
        **{
            name: tuple(masks.labels[name][side][place] for side in _SIDES for place in kept[side])
            for name in masks.names
        },
    }


def _responses(fmri: dict[str, np.ndarray], kept: dict[str, np.ndarray]) -> np.ndarray:
    """The vertices that are kept, float32 (n_images, n_sites), read some rows at a time."""
    n = len(fmri["lh"])
    out = np.empty((n, sum(map(len, kept.values()))), np.float32)
    for start in range(0, n, _ROWS_A_BLOCK):
        rows = slice(start, start + _ROWS_A_BLOCK)
        with np.errstate(over="ignore"):  # becomes infinite, which is reported as such
            out[rows] = np.hstack([fmri[side][rows][:, kept[side]] for side in _SIDES])
    return out


IMPORTER = Importer(
    "algonauts",
    "a subject of Algonauts 2023 with training_split/training_fmri and roi_masks",
    _detect,
    _read,
)
