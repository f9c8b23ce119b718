"""The folder format of recordings: read, written, and checked as a whole.

stimuli/             images
stimuli.csv          stimulus_id, filename (inside stimuli/), any labels; split: train, test or ood
sites.csv            site_id, region, any labels
responses.parquet    stimulus_id, repetition, responses: a list of float32, one a site
recordings.json      name, units, normalised, simulated, ...
splits.json          further fixed splits by name, where there are any
noise_free.parquet   stimulus_id, rates: the truth of a simulation, where there is one
splits.json          stimulus_ids of train, test and perhaps ood, of each split that has a name
"""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from nrp_onnx.errors import OutputError, RecordingsError
from nrp_onnx.files import whole_folder
from nrp_onnx.notes import Notes
from nrp_onnx.recordings.checks import (
    Report,
    Sources,
    check_recordings,
    check_responses,
    check_sites,
    check_splits,
    check_unique,
    few_responses,
    raise_problem,
    some,
)
from nrp_onnx.recordings.facts import read_facts, write_facts
from nrp_onnx.recordings.fixed_splits import SPLITS, FixedSplit, read_splits, write_splits
from nrp_onnx.recordings.image_census import image_census
from nrp_onnx.recordings.image_files import leaves_folder
from nrp_onnx.recordings.recordings import Recordings
from nrp_onnx.recordings.rows import read_rows, write_rows
from nrp_onnx.recordings.silent_sites import note_on_silent_sites, silent
from nrp_onnx.recordings.tables import Table, read_table, write_table

STIMULI, SITES, RESPONSES = "stimuli.csv", "sites.csv", "responses.parquet"
FACTS, NOISE_FREE = "recordings.json", "noise_free.parquet"


def load_recordings(folder: Path) -> Recordings:
    """Read a recordings folder.

    Raises:
        RecordingsError: for the first thing that is wrong with it.
    """
    recordings = read_folder(Path(folder), raise_problem)
    assert recordings is not None, "a folder without problems holds recordings"
    return recordings


def save_recordings(recordings: Recordings, folder: Path) -> Recordings:
    """Write recordings, images included, as a folder: whole or not at all.

    Returns:
        The recordings as they are in the new folder.

    Raises:
        OutputError: if the folder exists and is not empty.
        RecordingsError: if the recordings could not be loaded again.
    """
    folder = Path(folder)
    check_free(folder)
    name = recordings.name
    check_recordings(recordings, Sources(name, name, name), raise_problem)
    filenames = [path.name for path in recordings.stimulus_paths]
    # Compared without case, as some file systems do.
    if len({filename.lower() for filename in filenames}) < len(filenames):
        filenames = [f"{place:06d}_{filename}" for place, filename in enumerate(filenames)]
    with whole_folder(folder) as part:
        (part / "stimuli").mkdir()
        for path, filename in zip(recordings.stimulus_paths, filenames, strict=True):
            shutil.copyfile(path, part / "stimuli" / filename)
        write_tables(recordings, filenames, part)
    return load_recordings(folder)


def check_free(folder: Path) -> None:
    """Refuse a place for a new folder that is taken.

    Raises:
        OutputError: if it exists and is no empty folder.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise OutputError(
            "the place is taken",
            where=folder,
            expected="a new or empty folder",
            found="a folder with files" if folder.is_dir() else "a file",
            fix="Choose another one, or delete it.",
        )


def write_tables(recordings: Recordings, filenames: Sequence[str], folder: Path) -> None:
    """Write all but the images of a recordings folder; ``filenames`` are inside stimuli/."""
    ids = recordings.stimulus_ids
    write_table(
        folder / STIMULI,
        {"stimulus_id": ids, "filename": filenames, **recordings.stimulus_labels},
    )
    write_table(
        folder / SITES,
        {"site_id": recordings.site_ids, "region": recordings.regions, **recordings.site_labels},
    )
    shown = [ids[place] for place in recordings.presentation_stimulus]
    write_rows(
        folder / RESPONSES,
        {
            "stimulus_id": pa.array(shown, pa.string()),
            "repetition": pa.array(recordings.repetition, pa.int32()),
        },
        ("responses", recordings.responses),
        recordings.site_ids,
    )
    if recordings.noise_free is not None:
        write_rows(
            folder / NOISE_FREE,
            {"stimulus_id": pa.array(ids, pa.string())},
            ("rates", recordings.noise_free),
            recordings.site_ids,
        )
    if recordings.named_splits:
        write_splits(folder / SPLITS, recordings.named_splits)
    write_facts(folder / FACTS, recordings)


def read_folder(folder: Path, report: Report) -> Recordings | None:
    """Read a recordings folder and report all that is wrong with it.

    Returns:
        None if a part is not there or cannot be read, so that there are no recordings.
    """
    if not folder.is_dir():
        report(
            RecordingsError(
                "no such recordings",
                where=folder,
                expected="a recordings folder, simulated or simulated:N",
                found="a file" if folder.exists() else "nothing",
                fix="Make one with: nrp-onnx recordings import",
            )
        )
        return None
    facts = read_facts(folder / FACTS, report)
    stimuli = read_table(folder / STIMULI, ("stimulus_id", "filename"), report)
    sites = read_table(folder / SITES, ("site_id", "region"), report)
    if stimuli is not None:
        check_unique(stimuli.columns["stimulus_id"], "stimulus_id", folder / STIMULI, report)
        _check_filenames(stimuli, folder, report)
    if sites is not None:
        check_sites(sites.columns["site_id"], sites.columns["region"], folder / SITES, report)
    path = folder / RESPONSES
    keys = {"stimulus_id": pa.string(), "repetition": pa.int32()}
    site_ids = None if sites is None else sites.columns["site_id"]
    rows = read_rows(path, keys, "responses", site_ids, report)
    places = None
    if rows is not None and stimuli is not None:
        places = _places(rows[0]["stimulus_id"], stimuli, path, report)
    noise_free = _read_noise_free(folder / NOISE_FREE, stimuli, site_ids, report)
    if facts is None or stimuli is None or sites is None or rows is None or places is None:
        return None
    recordings = Recordings(
        stimulus_ids=stimuli.columns["stimulus_id"],
        stimulus_paths=tuple(folder / "stimuli" / file for file in stimuli.columns["filename"]),
        stimulus_labels=stimuli.further("stimulus_id", "filename"),
        site_ids=sites.columns["site_id"],
        regions=sites.columns["region"],
        site_labels=sites.further("site_id", "region"),
        responses=rows[1],
        presentation_stimulus=places,
        repetition=np.array(rows[0]["repetition"], np.int32),
        noise_free=noise_free,
        named_splits=_read_splits(folder / SPLITS, report),
        **facts,
    )
    check_responses(recordings, path, report)
    check_splits(recordings, folder / STIMULI, folder / SPLITS, report)
    return recordings


def _read_splits(path: Path, report: Report) -> dict[str, FixedSplit]:
    try:
        return read_splits(path)
    except RecordingsError as problem:
        report(problem)
        return {}


def _check_filenames(stimuli: Table, folder: Path, report: Report) -> None:
    filenames = stimuli.columns["filename"]
    if outside := [filename for filename in filenames if leaves_folder(filename)]:
        report(
            RecordingsError(
                f"{len(outside)} filenames leave the folder of stimuli",
                where=folder / STIMULI,
                expected="names relative to stimuli/, without ..",
                found=some(outside),
            )
        )
    missing = [
        filename
        for filename in filenames
        if not leaves_folder(filename) and not (folder / "stimuli" / filename).is_file()
    ]
    if missing:
        report(
            RecordingsError(
                f"{len(missing)} of {len(filenames)} images are missing",
                where=folder / "stimuli",
                expected=f"the files that {STIMULI} names",
                found=f"no {some(missing)}",
            )
        )


def _places(ids: Sequence[str], stimuli: Table, path: Path, report: Report) -> np.ndarray | None:
    """Places of stimulus_ids in stimuli.csv, int64; None if some are not there."""
    known = {name: place for place, name in enumerate(stimuli.columns["stimulus_id"])}
    if unknown := dict.fromkeys(name for name in ids if name not in known):
        report(
            RecordingsError(
                f"{len(unknown)} stimulus_ids are unknown",
                where=path,
                expected=f"ids of {STIMULI}",
                found=some(unknown),
            )
        )
        return None
    return np.array([known[name] for name in ids], np.int64)


def _read_noise_free(
    path: Path, stimuli: Table | None, site_ids: Sequence[str] | None, report: Report
) -> np.ndarray | None:
    """True rates in the order of stimuli.csv, float32 (n_stimuli, n_sites); None without them."""
    if not path.exists() or stimuli is None:
        return None
    rows = read_rows(path, {"stimulus_id": pa.string()}, "rates", site_ids, report)
    if rows is None:
        return None
    keys, rates = rows
    places = _places(keys["stimulus_id"], stimuli, path, report)
    if places is None:
        return None
    n_stimuli = len(stimuli.columns["stimulus_id"])
    times = np.bincount(places, minlength=n_stimuli)
    if (times != 1).any() or not np.isfinite(rates).all():
        report(
            RecordingsError(
                "the true rates are not complete",
                where=path,
                expected=f"one row of finite numbers for each of {n_stimuli} stimuli",
                found=f"{(times == 1).sum()} stimuli with one row, "
                f"{(~np.isfinite(rates)).sum()} numbers that are not finite",
            )
        )
        return None
    ordered = np.empty_like(rates)
    ordered[places] = rates
    return ordered


@dataclass(frozen=True)
class Validation:
    """What `examine_recordings` found.

    Attributes:
        problems: one line each; without any, the recordings can be scored.
        images: see `nrp_onnx.recordings.image_census.image_census`.
        silent_sites: ids of the sites that a score leaves out.
    """

    problems: list[str]
    images: dict[str, Any]
    silent_sites: list[str]


def validate_recordings(folder: Path) -> list[str]:
    """All problems of a recordings folder, one line each; every image is decoded.

    What is no problem yet, such as a site with few responses, goes to the logger ``nrp_onnx``.
    """
    return examine_recordings(folder).problems


def examine_recordings(folder: Path) -> Validation:
    """`validate_recordings`, and what its images and its sites are like."""
    folder = Path(folder)
    problems: list[RecordingsError] = []
    recordings = read_folder(folder, problems.append)
    silent_sites: list[str] = []
    if recordings is not None:
        notes = Notes()
        if warning := few_responses(recordings):
            notes.say(f"{folder}: {warning}")
        if warning := note_on_silent_sites(recordings):
            notes.say(f"{folder}: {warning}")
        silent_sites = [
            recordings.site_ids[place] for place in np.flatnonzero(silent(recordings.averages))
        ]
    # Also where another part of the folder is so wrong that there are no recordings.
    stimuli = read_table(folder / STIMULI, ("filename",), lambda problem: None)
    filenames = () if stimuli is None else stimuli.columns["filename"]
    inside = [name for name in filenames if not leaves_folder(name)]
    there = [name for name in inside if (folder / "stimuli" / name).is_file()]
    images = image_census([folder / "stimuli" / name for name in there], there, problems.append)
    return Validation([str(problem) for problem in problems], images, silent_sites)
