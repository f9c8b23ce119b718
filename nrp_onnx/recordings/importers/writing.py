"""Imports a path: chooses its format, reads it, selects sites, looks at the order, writes a folder."""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from nrp_onnx.errors import OptionError, RecordingsError
from nrp_onnx.files import whole_folder, write_json
from nrp_onnx.notes import Notes
from nrp_onnx.recordings.checks import check_recordings, raise_problem
from nrp_onnx.recordings.fixed_splits import SPLITS
from nrp_onnx.recordings.folder import check_free, load_recordings, write_tables
from nrp_onnx.recordings.image_files import copy_images
from nrp_onnx.recordings.image_order import check_image_order
from nrp_onnx.recordings.importers.formats import check_options, check_there, choose_importer
from nrp_onnx.recordings.importers.importer import Parts
from nrp_onnx.recordings.recordings import Recordings, check_degrees
from nrp_onnx.recordings.reliability import site_reliability


def import_path(
    path: Path,
    out: Path,
    *,
    format: str | None = None,
    min_reliability: float | None = None,
    facts: Mapping[str, Any] | None = None,
    notes: Notes | None = None,
    **options: Any,
) -> Recordings:
    """Write a recordings folder from files of any format that an importer knows.

    Args:
        path: a file or folder; its format is found out from names and headers.
        out: the new folder, written whole or not at all.
        format: the name of the format, instead.
        min_reliability: leave out sites whose reliability is lower, or not known. By default all
            sites are kept.
        facts: of `Recordings`, instead of those that the importer knows: ``name``, ``licence``,
            ``citation``, ``visual_degrees``.
        notes: is told of choices.
        options: those of the format, as the command line names them, with underscores.

    Raises:
        RecordingsError, OptionError: if the files do not fit each other or the format; nothing is
            then written.
        OutputError: if ``out`` exists and is not empty.

    Example:
        >>> import_path(Path("monkeyF"), Path("tvsd_f"), images=Path("things"))  # doctest: +SKIP
    """
    path, out, notes = Path(path), Path(out), notes or Notes()
    facts = dict(facts or {})
    check_degrees(facts.get("visual_degrees"))
    check_free(out)
    importer = choose_importer(path, format, notes)
    check_options(importer, options, path)
    check_there(path)
    return import_parts(importer.read(path, notes, **options), out, facts, notes, min_reliability)


def import_parts(
    opened: AbstractContextManager[Parts],
    out: Path,
    facts: Mapping[str, Any],
    notes: Notes,
    min_reliability: float | None = None,
) -> Recordings:
    """Write what an importer opens as a recordings folder; see `import_path`.

    Args:
        facts: of `Recordings`, in the place of those that the importer knows.
    """
    check_degrees(facts.get("visual_degrees"))
    check_free(out)
    with opened as parts:
        parts = replace(parts, recordings=replace(parts.recordings, **facts))
        write_parts(parts, out, notes, min_reliability)
    # Else two copies of the responses would be held while the folder is read.
    del parts
    return load_recordings(out)


def write_parts(
    parts: Parts, out: Path, notes: Notes, min_reliability: float | None = None
) -> None:
    """Write what an importer read as a recordings folder: whole or not at all.

    Raises:
        RecordingsError: if the recordings could not be loaded again.
        OptionError: if no site is as reliable as ``min_reliability``, or none is known to be.
        OutputError: if ``out`` exists and is not empty.
    """
    check_free(out)
    if min_reliability is not None:
        parts = _select_reliable(parts, min_reliability, notes)
    recordings = parts.recordings
    check_recordings(recordings, parts.sources, raise_problem)
    filenames = [path.as_posix() for path in recordings.stimulus_paths]
    with whole_folder(out) as part:
        copy_images(parts.images, filenames, part / "stimuli")
        placed = tuple(part / "stimuli" / filename for filename in filenames)
        order = check_image_order(
            replace(recordings, stimulus_paths=placed), parts.reliability, notes
        )
        provenance = {**recordings.provenance, "image_order": order}
        write_tables(replace(recordings, provenance=provenance), filenames, part)
        if parts.splits:
            write_json(part / SPLITS, parts.splits)


def _select_reliable(parts: Parts, least: float, notes: Notes) -> Parts:
    recordings = parts.recordings
    reliability = parts.reliability
    if reliability is None:
        reliability = site_reliability(recordings)
    if np.isnan(reliability).all():
        raise OptionError(
            "the reliability of the sites is not known",
            where="--min-reliability",
            expected="repetitions of three stimuli or more, or a format that gives reliabilities",
            found=f"none in {parts.sources.responses}",
        )
    with np.errstate(invalid="ignore"):
        kept = np.flatnonzero(reliability >= least)
    if not kept.size:
        raise RecordingsError(
            "no site is reliable enough",
            where=parts.sources.responses,
            expected=f"a {parts.reliability_is} of {least:g} or more",
            found=f"at most {np.nanmax(reliability):.3g} at {recordings.n_sites} sites",
        )
    n_left_out = recordings.n_sites - kept.size
    notes.say(
        f"{n_left_out} of {recordings.n_sites} sites are left out: their {parts.reliability_is} is "
        f"below {least:g}"
    )
    selected = recordings.select_sites([int(place) for place in kept])
    selection = {
        "min_reliability": least,
        "reliability": parts.reliability_is,
        "n_sites_left_out": n_left_out,
    }
    return replace(
        parts,
        recordings=replace(selected, provenance={**selected.provenance, **selection}),
        reliability=None if parts.reliability is None else parts.reliability[kept],
    )
