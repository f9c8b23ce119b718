"""Problems of recordings: where they go, and those that show in the numbers and ids themselves."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NoReturn

import numpy as np

from nrp_onnx.errors import RecordingsError
from nrp_onnx.recordings.fixed_splits import COLUMN, problems_of_column, problems_of_split
from nrp_onnx.recordings.recordings import Recordings

#: Sites with responses to fewer images are likely to have none in the training part of a fold.
FEW_RESPONSES = 10
#: What to do with a problem: loading raises it, validating collects it and goes on.
Report = Callable[[RecordingsError], None]


def raise_problem(problem: RecordingsError) -> NoReturn:
    """Stop at the first problem."""
    raise problem


@dataclass(frozen=True)
class Sources:
    """The files that an error is to name for each part of the recordings."""

    stimuli: object
    sites: object
    responses: object


def some(names: Iterable[str]) -> str:
    """The first three names, and how many more there are."""
    listed = list(names)
    more = f" and {len(listed) - 3} more" if len(listed) > 3 else ""
    return ", ".join(map(repr, listed[:3])) + more


def check_unique(values: Iterable[str], what: str, where: object, report: Report) -> None:
    """Report values that come twice, and empty ones."""
    counts = Counter(values)
    if counts.pop("", 0):
        report(RecordingsError(f"a {what} is empty", where=where, expected="a text in each row"))
    if twice := [value for value, count in counts.items() if count > 1]:
        report(
            RecordingsError(
                f"a {what} comes twice",
                where=where,
                expected="each one once",
                found=some(twice),
            )
        )


def check_sites(
    site_ids: Sequence[str], regions: Sequence[str], where: object, report: Report
) -> None:
    """Report site_ids that are not unique, and sites without a region."""
    check_unique(site_ids, "site_id", where, report)
    if nowhere := [name for name, region in zip(site_ids, regions, strict=True) if not region]:
        report(
            RecordingsError(
                f"{len(nowhere)} sites have no region",
                where=where,
                expected="a region such as V4 in each row",
                found=f"none for {some(nowhere)}",
            )
        )


def check_responses(recordings: Recordings, where: object, report: Report) -> None:
    """Report responses that cannot be scored."""
    _check_presentations(recordings, where, report)
    _check_values(recordings, where, report)


def check_recordings(recordings: Recordings, sources: Sources, report: Report) -> None:
    """Report ids that are not unique, sites without a region, responses that cannot be scored."""
    check_unique(recordings.stimulus_ids, "stimulus_id", sources.stimuli, report)
    check_sites(recordings.site_ids, recordings.regions, sources.sites, report)
    check_responses(recordings, sources.responses, report)
    check_splits(recordings, sources.stimuli, sources.stimuli, report)


def check_splits(
    recordings: Recordings, of_column: object, of_file: object, report: Report
) -> None:
    """Report fixed splits that cannot be scored.

    Args:
        of_column, of_file: what an error is to name for the column of stimuli.csv, for splits.json.
    """
    for problem in problems_of_column(recordings.stimulus_labels.get(COLUMN, ()), of_column):
        report(problem)
    known = set(recordings.stimulus_ids)
    for name, split in recordings.splits.items():
        where = of_file if name in recordings.named_splits else of_column
        for problem in problems_of_split(name, split, known, where):
            report(problem)


def _check_presentations(recordings: Recordings, where: object, report: Report) -> None:
    recorded = ~np.isnan(recordings.responses).all(axis=1)
    times = np.bincount(recordings.presentation_stimulus[recorded], minlength=recordings.n_stimuli)
    if (silent := np.flatnonzero(times == 0)).size:
        report(
            RecordingsError(
                f"{silent.size} of {recordings.n_stimuli} stimuli have no response",
                where=where,
                expected="one presentation or more of each stimulus",
                found=f"none of {some(recordings.stimulus_ids[place] for place in silent)}",
            )
        )
    pairs = np.stack([recordings.presentation_stimulus, recordings.repetition], axis=1)
    distinct, times = np.unique(pairs, axis=0, return_counts=True)
    if (twice := distinct[times > 1]).size:
        stimulus, repetition = twice[0]
        report(
            RecordingsError(
                f"{len(twice)} repetitions of a stimulus come twice",
                where=where,
                expected="each pair of stimulus_id and repetition once",
                found=f"{recordings.stimulus_ids[stimulus]!r}, repetition {repetition}, twice",
            )
        )


def _check_values(recordings: Recordings, where: object, report: Report) -> None:
    infinite = np.isinf(recordings.responses)
    if infinite.any():
        row, site = np.argwhere(infinite)[0]
        stimulus = recordings.stimulus_ids[recordings.presentation_stimulus[row]]
        report(
            RecordingsError(
                f"{infinite.sum()} responses are infinite",
                where=where,
                expected="numbers, or NaN where a response is missing",
                found=f"one of site {recordings.site_ids[site]} to {stimulus!r}",
            )
        )
    dead = np.flatnonzero(np.isnan(recordings.responses).all(axis=0))
    # Without presentations every stimulus was reported already.
    if dead.size and len(recordings.responses):
        report(
            RecordingsError(
                f"{dead.size} of {recordings.n_sites} sites have no response",
                where=where,
                expected="a number or more for each site",
                found=f"NaN only for {some(recordings.site_ids[site] for site in dead)}",
                fix="Leave these sites out.",
            )
        )


def few_responses(recordings: Recordings) -> str | None:
    """A line about sites with responses to fewer images than `FEW_RESPONSES`; None if there are none.

    They can be scored as long as the training images of every fold hold one of the responses.
    """
    counts = (recordings.repetition_counts() > 0).sum(axis=0)
    few = np.flatnonzero(counts < min(FEW_RESPONSES, recordings.n_stimuli))
    if not few.size:
        return None
    named = [f"{recordings.site_ids[site]!r} to {counts[site]}" for site in few[:3]]
    more = f" and {few.size - 3} more" if few.size > 3 else ""
    return (
        f"{few.size} of {recordings.n_sites} sites have responses to fewer than {FEW_RESPONSES} "
        f"images: {', '.join(named)}{more}. A fold whose training images hold none of them cannot be "
        "scored: leave these sites out."
    )
