"""Makes a recordings folder from BrainIO files: an assembly, a table of stimuli, their images."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from nrp_onnx.errors import RecordingsError
from nrp_onnx.files import sha256_of_file
from nrp_onnx.notes import Notes
from nrp_onnx.recordings.checks import Sources, some
from nrp_onnx.recordings.image_files import ImageSource, open_images
from nrp_onnx.recordings.importers.assembly import NEUROID, PRESENTATION, Assembly, open_assembly
from nrp_onnx.recordings.importers.hdf5 import top_names
from nrp_onnx.recordings.importers.importer import Importer, Parts
from nrp_onnx.recordings.importers.netcdf import DIM as TIME_BIN
from nrp_onnx.recordings.importers.netcdf import choose_bins
from nrp_onnx.recordings.importers.stimulus_set import ID_COLUMNS, read_stimulus_set
from nrp_onnx.recordings.importers.writing import import_parts
from nrp_onnx.recordings.recordings import Recordings


def import_brainio(
    assembly: Path,
    stimuli: Path,
    images: Path,
    out: Path,
    *,
    name: str | None = None,
    test: Path | None = None,
    window: tuple[float, float] | None = None,
    region: str | None = None,
    key: str | None = None,
    units: str = "unknown",
    normalised: bool = False,
    licence: str | None = None,
    citation: str | None = None,
    simulated: bool = False,
    visual_degrees: float | None = None,
    stratify_on: str | None = None,
    notes: Notes | None = None,
) -> Recordings:
    """Write a recordings folder from a BrainIO assembly and its stimulus set.

    Memory stays within some four times the float32 array (n_presentations, n_neuroids); that of
    the file's time bins is never held.

    Args:
        assembly: netCDF-4; numbers over presentation, neuroid and perhaps time_bin, in any order.
        stimuli: CSV with stimulus_id or image_id, and any labels. Rows that were never presented
            are left out.
        images: a folder or a zip of image files; they are copied byte for byte.
        out: the new folder, written whole or not at all.
        name: of the recordings; by default that of the assembly's file.
        test: an assembly of the same neuroids for the test stimuli, whose rows are in ``stimuli``,
            too; the stimuli of ``assembly`` are then for training.
        window: in ms after stimulus onset; the time bins that lie within it are averaged. Needed
            where there are several.
        region: of all neuroids, where the assembly does not name one for each.
        key: the variable of the responses, where several have their dimensions.
        units, normalised, licence, citation, simulated, visual_degrees, stratify_on: see
            `Recordings`.
        notes: is told what was left out, averaged or made up.

    Raises:
        RecordingsError, OptionError: if the files do not fit each other; nothing is then written.
        OutputError: if ``out`` exists and is not empty.
    """
    assembly, stimuli, images, out = Path(assembly), Path(stimuli), Path(images), Path(out)
    notes = notes or Notes()
    facts: dict[str, Any] = {
        "licence": licence,
        "citation": citation,
        "visual_degrees": visual_degrees,
        "stratify_on": stratify_on,
    }
    if name:
        facts["name"] = name
    opened = _read(
        assembly,
        notes,
        stimuli=stimuli,
        images=images,
        test=test,
        window=window,
        region=region,
        key=key,
        units=units,
        normalised=normalised,
        simulated=simulated,
    )
    return import_parts(opened, out, facts, notes)


def _detect(path: Path) -> str | None:
    if {PRESENTATION, NEUROID} <= top_names(path):
        return "it has the dimensions presentation and neuroid"
    # Also a damaged one, or one of the classic kind, which the reader explains.
    return "its name ends in .nc" if path.suffix == ".nc" and path.is_file() else None


@contextmanager
def _read(
    path: Path,
    notes: Notes,
    *,
    stimuli: Path,
    images: Path,
    test: Path | None = None,
    window: tuple[float, float] | None = None,
    region: str | None = None,
    key: str | None = None,
    units: str = "unknown",
    normalised: bool = False,
    simulated: bool = False,
) -> Iterator[Parts]:
    """Read an assembly, or one of training and one of test stimuli; see `import_brainio`."""
    chosen: dict[str, Any] = {"window": window, "region": region, "key": key}
    with open_images(images) as source:
        recordings = _read_assembly(path, stimuli, source, notes, **chosen)
        if test is not None:
            second = _read_assembly(test, stimuli, source, notes, **chosen)
            recordings = _train_and_test(recordings, second, path, test)
        recordings = replace(recordings, units=units, normalised=normalised, simulated=simulated)
        yield Parts(recordings, source, Sources(stimuli, path, path))


def _train_and_test(train: Recordings, test: Recordings, path: Path, test_path: Path) -> Recordings:
    """Two assemblies of the same neuroids as one, with the label ``split`` of the stimuli.

    Raises:
        RecordingsError: if the neuroids or time windows differ, or a stimulus is in both.
    """
    if shared := set(train.stimulus_ids) & set(test.stimulus_ids):
        raise RecordingsError(
            f"{len(shared)} stimuli are in the assemblies of both train and test",
            where=test_path,
            expected=f"stimuli that {path.name} does not have",
            found=some(sorted(shared)),
        )
    places = {name: place for place, name in enumerate(test.site_ids)}
    if set(places) != set(train.site_ids):
        raise RecordingsError(
            "the assemblies of train and test are of other neuroids",
            where=test_path,
            expected=f"the {train.n_sites} neuroids of {path.name}",
            found=f"{test.n_sites}, of which {len(set(places) & set(train.site_ids))} are there",
        )
    test = test.select_sites([places[name] for name in train.site_ids])
    if (train.regions, train.time_window_ms) != (test.regions, test.time_window_ms):
        raise RecordingsError(
            "the assemblies of train and test differ in regions or time window",
            where=test_path,
            expected=f"those of {path.name}: {train.time_window_ms} ms",
            found=f"{test.time_window_ms} ms",
        )
    labels = {
        name: train.stimulus_labels[name] + test.stimulus_labels[name]
        for name in train.stimulus_labels
        if name in test.stimulus_labels
    }
    labels["split"] = ("train",) * train.n_stimuli + ("test",) * test.n_stimuli
    return replace(
        train,
        stimulus_ids=train.stimulus_ids + test.stimulus_ids,
        stimulus_paths=train.stimulus_paths + test.stimulus_paths,
        stimulus_labels=labels,
        responses=np.concatenate([train.responses, test.responses]),
        presentation_stimulus=np.concatenate(
            [train.presentation_stimulus, test.presentation_stimulus + train.n_stimuli]
        ),
        repetition=np.concatenate([train.repetition, test.repetition]),
        provenance={**train.provenance, "test": test.provenance},
    )


def _read_assembly(
    path: Path,
    stimuli: Path,
    images: ImageSource,
    notes: Notes,
    *,
    window: tuple[float, float] | None,
    region: str | None,
    key: str | None,
) -> Recordings:
    """The recordings of one assembly; paths of stimuli are names of ``images``."""
    with open_assembly(path, key) as assembly:
        site_ids, regions, site_labels = _sites(assembly, region, notes)
        stimulus_set = read_stimulus_set(stimuli, images, _shown(assembly), path)
        repetition = _repetitions(assembly, stimulus_set.shown, notes)
        bins = choose_bins(
            path, assembly.coordinates.get(TIME_BIN, {}), assembly.length(TIME_BIN), window
        )
        responses = assembly.read(bins)
        variable = assembly.responses.name
    if bins.places is not None and len(bins.places) > 1 and bins.window_ms is not None:
        start, end = bins.window_ms
        notes.say(
            f"the responses are the mean of {len(bins.places)} time bins, {start:g} to {end:g} ms"
            + ("" if bins.equal else "; the bins differ in length and count the same")
        )
    recorded = ~np.isnan(responses).all(axis=1)
    if not recorded.any():
        raise RecordingsError(
            "the assembly holds no response",
            where=path,
            expected="a number or more",
            found=f"{responses.shape[0]} presentations to {responses.shape[1]} neuroids, all NaN",
        )
    if n_empty := int((~recorded).sum()):
        notes.say(f"{n_empty} presentations of {path.name} without any response are left out")
        responses, repetition = responses[recorded], repetition[recorded]
        stimulus_set = stimulus_set.select(recorded)
    places = {name: place for place, name in enumerate(stimulus_set.ids)}
    if stimulus_set.n_left_out:
        notes.say(
            f"{stimulus_set.n_left_out} of {stimulus_set.n_left_out + len(places)} stimuli of "
            f"{stimuli.name} have no responses in {path.name} and are left out"
        )
    return Recordings(
        name=path.stem,
        stimulus_ids=stimulus_set.ids,
        stimulus_paths=tuple(map(Path, stimulus_set.filenames)),
        stimulus_labels=stimulus_set.labels,
        site_ids=site_ids,
        regions=regions,
        site_labels=site_labels,
        responses=responses,
        presentation_stimulus=np.array([places[name] for name in stimulus_set.shown], np.int64),
        repetition=repetition,
        time_window_ms=bins.window_ms,
        provenance={
            "importer": "brainio",
            "assembly": {"file": path.name, "sha256": sha256_of_file(path)},
            "stimuli": {"file": stimuli.name, "sha256": sha256_of_file(stimuli)},
            "images": images.path.name,
            "variable": variable,
            "n_time_bins": None if bins.places is None else len(bins.places),
            "stimulus_ids": [stimulus_set.shown_from, stimulus_set.ids_from],
            "filenames": stimulus_set.filenames_from,
            "n_stimuli_left_out": stimulus_set.n_left_out,
            "n_empty_presentations": n_empty,
        },
    )


def _sites(
    assembly: Assembly, region: str | None, notes: Notes
) -> tuple[tuple[str, ...], tuple[str, ...], dict[str, tuple[str, ...]]]:
    """Ids, regions and labels of the neuroids."""
    columns = {name: assembly.texts(NEUROID, name) for name in assembly.names(NEUROID)}
    labels = {name: texts for name, texts in columns.items() if texts is not None}
    n = assembly.length(NEUROID) or 0
    ids = labels.pop("neuroid_id", None)
    index = labels.pop(NEUROID, None)
    if ids is None and index is not None and not assembly.levels[NEUROID]:
        ids = index
    if ids is None:
        notes.say(f"{assembly.path.name} has no neuroid_id: its {n} neuroids are numbered")
        ids = tuple(f"neuroid_{place:04d}" for place in range(n))
    regions = labels.pop("region", None)
    if region is not None:
        if regions is not None and set(regions) != {region}:
            notes.say(f"all neuroids are taken to be in {region}, not in those that the file names")
        regions = (region,) * n
    if regions is None:
        raise RecordingsError(
            "the assembly does not say where its neuroids are",
            where=assembly.path,
            expected=f"a variable region of the dimension {NEUROID}",
            found=", ".join(assembly.names(NEUROID)) or "none",
            fix="If all are in one region, name it, as --region V4.",
        )
    labels.pop("site_id", None)
    return ids, regions, labels


def _shown(assembly: Assembly) -> dict[str, tuple[str, ...]]:
    """The ids of the presentations, by the coordinate that holds them."""
    found = {name: assembly.texts(PRESENTATION, name) for name in ID_COLUMNS}
    shown = {name: texts for name, texts in found.items() if texts is not None}
    if not shown:
        raise RecordingsError(
            "the assembly does not say which stimuli were presented",
            where=assembly.path,
            expected=f"a variable {' or '.join(ID_COLUMNS)} of the dimension {PRESENTATION}",
            found=", ".join(assembly.names(PRESENTATION)) or "none",
        )
    return shown


def _repetitions(assembly: Assembly, shown: tuple[str, ...], notes: Notes) -> np.ndarray:
    """The repetition of each presentation, int32; counted where the assembly does not tell."""
    texts = assembly.texts(PRESENTATION, "repetition")
    try:
        stated = None if texts is None else np.array(texts, np.float64)
    except ValueError:
        stated = None
    whole = stated is not None and bool(
        ((stated == np.round(stated)) & (np.abs(stated) < 2**31)).all()
    )
    if (
        stated is not None
        and whole
        and len(set(zip(shown, stated.tolist(), strict=True))) == len(shown)
    ):
        return stated.astype(np.int32)
    reason = (
        "has no repetition"
        if texts is None
        else "names a repetition of a stimulus twice"
        if whole
        else "has repetitions that are no whole numbers"
    )
    notes.say(f"{assembly.path.name} {reason}: they are counted for each stimulus, in their order")
    counts: dict[str, int] = {}
    counted = np.empty(len(shown), np.int32)
    for place, name in enumerate(shown):
        counted[place] = counts[name] = counts.get(name, -1) + 1
    return counted


IMPORTER = Importer(
    "brainio",
    "a file .nc, or of netCDF-4 with the dimensions presentation and neuroid",
    _detect,
    _read,
)
