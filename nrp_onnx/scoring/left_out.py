"""Sites that a score leaves out: nothing about them can be predicted, so they flatter every predictor."""

from collections.abc import Sequence

import numpy as np

from nrp_onnx.errors import RecordingsError
from nrp_onnx.notes import Notes
from nrp_onnx.recordings import Recordings
from nrp_onnx.recordings.checks import some
from nrp_onnx.recordings.silent_sites import FEWEST, silent
from nrp_onnx.scoring.splits import Fold


def without_silent_sites(
    recordings: Recordings, folds: Sequence[Fold], notes: Notes
) -> tuple[Recordings, list[str]]:
    """The recordings without sites that are silent, and the ids of these; a note says them.

    A site is silent over all images (see `nrp_onnx.recordings.silent_sites`), or constant over the
    training images of a fold. A site without a response to those is no silent one: it is refused
    where the responses are checked.

    Raises:
        RecordingsError: if no site is left.
    """
    averages = recordings.averages
    of_all = silent(averages)
    of_fold = np.zeros(recordings.n_sites, bool)
    for fold in folds:
        of_fold |= silent(averages[fold.train], fewest=1)
    recorded = np.array([~np.isnan(averages[fold.fit]).all(axis=0) for fold in folds]).all(axis=0)
    left_out = (of_all | of_fold) & recorded
    if not left_out.any():
        return recordings, []
    names = [recordings.site_ids[place] for place in np.flatnonzero(left_out)]
    if left_out.all():
        raise RecordingsError(
            "every site is silent",
            where=recordings.name,
            expected=f"sites that answer {FEWEST} or more images in another way than the others, by "
            "more than the rounding of float32",
            found=f"{some(names)}, all but constant",
            fix="Check the axes and the units of the responses; if they are large, take their mean off.",
        )
    in_fold = int((left_out & ~of_all).sum())
    notes.say(
        f"{len(names)} of {recordings.n_sites} sites are silent and left out: {some(names)}. They "
        f"answer all but fewer than {FEWEST} images alike"
        + (f", or ({in_fold} of them) all training images of a fold" if in_fold else "")
    )
    return recordings.select_sites(np.flatnonzero(~left_out)), names
