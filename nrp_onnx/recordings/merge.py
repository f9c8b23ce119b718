"""Several recordings as one set: sessions or animals that share stimuli, or do not."""

import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from nrp_onnx.errors import OptionError, RecordingsError
from nrp_onnx.files import sha256_of_file, whole_folder
from nrp_onnx.notes import Notes
from nrp_onnx.recordings.checks import Sources, check_recordings, raise_problem, some
from nrp_onnx.recordings.fixed_splits import PARTS, FixedSplit
from nrp_onnx.recordings.folder import check_free, load_recordings, write_tables
from nrp_onnx.recordings.recordings import Recordings

#: The label of stimuli that decides scores: it must not contradict itself.
_SPLIT = "split"


def merge_recordings(
    folders: Sequence[Path], out: Path, *, name: str | None = None, notes: Notes | None = None
) -> Recordings:
    """Write one recordings folder from several.

    Stimuli of the same id are one, if their images are the same to the byte. Presentations of a
    stimulus with the same repetition become one row; the sites of recordings that do not have it are
    NaN there. Sites whose ids come twice are prefixed by their session, or by the name of their
    recordings. Recordings that do not name sessions count as one session each.

    Args:
        folders: of two recordings or more.
        out: the new folder, written whole or not at all.
        name: of the new recordings; by default the old names, joined by +.
        notes: is told of what differs between them.

    Raises:
        RecordingsError: if they contradict each other: in units, in what an image is, or in the
            part of a split that a stimulus is in.
        OptionError: for fewer than two.
        OutputError: if ``out`` exists and is not empty.

    Example:
        >>> merge_recordings([Path("tvsd_f"), Path("tvsd_n")], Path("tvsd"))  # doctest: +SKIP
    """
    folders, out, notes = [Path(folder) for folder in folders], Path(out), notes or Notes()
    if len(folders) < 2:
        raise OptionError(
            "there is nothing to merge",
            where="recordings merge",
            expected="two recordings folders or more",
            found=len(folders),
        )
    check_free(out)
    sets = [load_recordings(folder) for folder in folders]
    _check_same(sets, folders)
    first = _first_places(sets, folders)
    merged = replace(_merged(sets, folders, first, name, notes), named_splits=_splits(sets))
    check_recordings(merged, Sources(out, out, out), raise_problem)
    filenames = _filenames(sets, folders, first)
    # The responses of all sets are twice those of the merged one otherwise.
    del sets
    with whole_folder(out) as part:
        for path, filename in zip(merged.stimulus_paths, filenames, strict=True):
            place = part / "stimuli" / filename
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, place)
        write_tables(merged, filenames, part)
    del merged
    return load_recordings(out)


def _check_same(sets: Sequence[Recordings], folders: Sequence[Path]) -> None:
    """Refuse sets whose responses do not mean the same."""
    for key in ("units", "normalised", "simulated"):
        for other, folder in zip(sets[1:], folders[1:], strict=True):
            if getattr(other, key) != getattr(sets[0], key):
                raise RecordingsError(
                    f"{key} differ between the recordings",
                    where=folder,
                    expected=f"{getattr(sets[0], key)!r}, as {folders[0]}",
                    found=repr(getattr(other, key)),
                    fix="Score them one by one, or correct recordings.json.",
                )


def _first_places(
    sets: Sequence[Recordings], folders: Sequence[Path]
) -> dict[str, tuple[int, int]]:
    """The set and place where each stimulus comes first, in order.

    Raises:
        RecordingsError: if a stimulus has two images, or is in two parts of a split.
    """
    first: dict[str, tuple[int, int]] = {}
    for number, recordings in enumerate(sets):
        for place, name in enumerate(recordings.stimulus_ids):
            if name not in first:
                first[name] = (number, place)
                continue
            there, old = sets[first[name][0]], first[name][1]
            paths = there.stimulus_paths[old], recordings.stimulus_paths[place]
            if sha256_of_file(paths[0]) != sha256_of_file(paths[1]):
                raise RecordingsError(
                    f"the stimulus {name!r} has two images",
                    where=paths[1],
                    expected=f"the bytes of {paths[0]}",
                    found="another image",
                    fix="Give different images different stimulus_ids.",
                )
            parts = _part(there, old), _part(recordings, place)
            if all(parts) and parts[0] != parts[1]:
                raise RecordingsError(
                    f"the stimulus {name!r} is in two parts of the split",
                    where=folders[number],
                    expected=f"{parts[0]}, as {folders[first[name][0]]}",
                    found=parts[1],
                )
    return first


def _part(recordings: Recordings, place: int) -> str:
    values = recordings.stimulus_labels.get(_SPLIT)
    return values[place] if values else ""


def _merged(
    sets: Sequence[Recordings],
    folders: Sequence[Path],
    first: dict[str, tuple[int, int]],
    name: str | None,
    notes: Notes,
) -> Recordings:
    ids = tuple(first)
    responses, stimulus, repetition = _rows(sets, {name: place for place, name in enumerate(ids)})
    labels = _site_labels(sets, folders)
    return Recordings(
        name=name or "+".join(recordings.name for recordings in sets),
        stimulus_ids=ids,
        stimulus_paths=tuple(
            sets[number].stimulus_paths[place] for number, place in first.values()
        ),
        stimulus_labels=_stimulus_labels(sets, first),
        site_ids=_site_ids(sets, labels["session"], notes),
        regions=tuple(region for recordings in sets for region in recordings.regions),
        site_labels=labels,
        responses=responses,
        presentation_stimulus=stimulus,
        repetition=repetition,
        units=sets[0].units,
        normalised=sets[0].normalised,
        simulated=sets[0].simulated,
        time_window_ms=_common(sets, "time_window_ms", notes),
        visual_degrees=_common(sets, "visual_degrees", notes),
        stratify_on=_common(sets, "stratify_on", notes),
        licence=_joined([recordings.licence for recordings in sets]),
        citation=_joined([recordings.citation for recordings in sets]),
        provenance={
            "merged": [
                {
                    "name": recordings.name,
                    "fingerprint": recordings.fingerprint,
                    "visual_degrees": recordings.visual_degrees,
                    "time_window_ms": recordings.time_window_ms,
                    "provenance": recordings.provenance,
                }
                for recordings in sets
            ]
        },
    )


def _rows(
    sets: Sequence[Recordings], places: dict[str, int]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Responses (n_rows, n_sites), and the stimulus and repetition of each row, in that order."""
    keys = []
    for recordings in sets:
        stimulus = np.array([places[name] for name in recordings.stimulus_ids], np.int64)
        keys.append(
            np.stack([stimulus[recordings.presentation_stimulus], recordings.repetition], axis=1)
        )
    rows, row_of = np.unique(np.concatenate(keys), axis=0, return_inverse=True)
    n_sites = sum(recordings.n_sites for recordings in sets)
    responses = np.full((len(rows), n_sites), np.nan, np.float32)
    row, column = 0, 0
    for recordings in sets:
        n = len(recordings.responses)
        columns = slice(column, column + recordings.n_sites)
        responses[row_of.ravel()[row : row + n], columns] = recordings.responses
        row, column = row + n, columns.stop
    return responses, rows[:, 0], rows[:, 1].astype(np.int32)


def _stimulus_labels(
    sets: Sequence[Recordings], first: dict[str, tuple[int, int]]
) -> dict[str, tuple[str, ...]]:
    """Every label of any set; of each stimulus the first value that is not empty."""
    names = dict.fromkeys(label for recordings in sets for label in recordings.stimulus_labels)
    labels = {}
    for label in names:
        values = dict.fromkeys(first, "")
        for recordings in sets:
            for name, value in zip(
                recordings.stimulus_ids, recordings.stimulus_labels.get(label, ()), strict=False
            ):
                values[name] = values[name] or value
        labels[label] = tuple(values.values())
    return labels


def _site_labels(sets: Sequence[Recordings], folders: Sequence[Path]) -> dict[str, tuple[str, ...]]:
    """Every label of any set, empty where a set has none, with animal and session in any case."""
    names = dict.fromkeys(["animal", "session"])
    names |= dict.fromkeys(label for recordings in sets for label in recordings.site_labels)
    labels: dict[str, tuple[str, ...]] = {}
    for label in names:
        labels[label] = ()
        for recordings, folder in zip(sets, folders, strict=True):
            unknown = folder.resolve().name if label == "session" else ""
            labels[label] += recordings.site_labels.get(label, (unknown,) * recordings.n_sites)
    if not any(labels["animal"]):
        del labels["animal"]
    return labels


def _site_ids(sets: Sequence[Recordings], sessions: Sequence[str], notes: Notes) -> tuple[str, ...]:
    """The ids of all sites; those that come twice get their session, else their set, in front."""
    ids = [site for recordings in sets for site in recordings.site_ids]
    named = [recordings.name for recordings in sets for _ in recordings.site_ids]
    for prefixes in (sessions, named):
        twice = {site for site, count in Counter(ids).items() if count > 1}
        if not twice:
            break
        notes.say(
            f"{len(twice)} site ids come twice and are prefixed, such as {some(sorted(twice)[:1])}"
        )
        ids = [
            f"{prefix}_{site}" if site in twice else site
            for prefix, site in zip(prefixes, ids, strict=True)
        ]
    return tuple(ids)


def _common(sets: Sequence[Recordings], key: str, notes: Notes) -> Any:
    """What all sets say; None where they differ, with a note."""
    values = [getattr(recordings, key) for recordings in sets]
    if all(value == values[0] for value in values):
        return values[0]
    notes.say(
        f"{key} differs ({', '.join(map(str, values))}): the merged recordings say none; "
        "recordings.json keeps that of each"
    )
    return None


def _joined(values: Sequence[str | None]) -> str | None:
    return "; ".join(dict.fromkeys(value for value in values if value)) or None


def _filenames(
    sets: Sequence[Recordings], folders: Sequence[Path], first: dict[str, tuple[int, int]]
) -> list[str]:
    """Names inside stimuli/: the old ones, or numbered where two are the same but for case."""
    names = [
        sets[number].stimulus_paths[place].relative_to(folders[number] / "stimuli").as_posix()
        for number, place in first.values()
    ]
    if len({name.lower() for name in names}) == len(names):
        return names
    return [f"{number}/{name}" for (number, _), name in zip(first.values(), names, strict=True)]


def _splits(sets: Sequence[Recordings]) -> dict[str, FixedSplit]:
    """The named splits of all sets, joined by name; what contradicts is found with all other problems."""
    merged: dict[str, FixedSplit] = {}
    for one in sets:
        for name, split in one.named_splits.items():
            known = merged.get(name, FixedSplit())
            both = (dict.fromkeys([*getattr(known, part), *getattr(split, part)]) for part in PARTS)
            merged[name] = FixedSplit(*map(tuple, both))
    return merged
