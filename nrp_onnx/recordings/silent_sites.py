"""Sites that hardly answer: any predictor is right about them, so they make a score look better.

A site is silent over some images if its averaged responses to them say nothing of images:

- constant: all of them are one number, up to the rounding of float32, in which they are stored; or
- nearly constant: all but fewer than `FEWEST` images have one and the same response, as of a cell
  that fired at one or two images. Such a site has next to no variance to predict, and with its two
  images in the held-out part it is constant in training.

A site with responses to fewer than `FEWEST` images is not called silent: it is not recorded, which is
another problem (`nrp_onnx.recordings.checks.few_responses`).
"""

import numpy as np

from nrp_onnx.recordings.checks import some
from nrp_onnx.recordings.recordings import Recordings

#: Images that a site has to answer in another way than it answers all others.
FEWEST = 3
#: Two responses of float32 are the same number if they differ by no more, relative to their size.
_ROUNDING = 4 * float(np.finfo(np.float32).eps)


def silent(averages: np.ndarray, fewest: int = FEWEST) -> np.ndarray:
    """Which sites are silent over some images: bool (n_sites,).

    Args:
        averages: float64 (n_images, n_sites), NaN is missing.
        fewest: images that have to differ from the site's most frequent response.

    Example:
        >>> rates = np.zeros((20, 3))
        >>> rates[:2, 1], rates[:10, 2] = 5, 5
        >>> silent(rates).tolist()
        [True, True, False]
    """
    found = np.zeros(averages.shape[1], bool)
    for site, column in enumerate(averages.T):
        known = column[~np.isnan(column)]
        if known.size < fewest:
            continue
        values, counts = np.unique(known.astype(np.float32), return_counts=True)
        most_frequent = float(values[counts.argmax()])
        differs = np.abs(known - most_frequent) > _ROUNDING * np.abs(known).max()
        n_differ = int(differs.sum())
        # Of few images most may differ, and be fewer than `fewest`.
        found[site] = n_differ == 0 or (n_differ < fewest and known.size > 3 * fewest)
    return found


def note_on_silent_sites(recordings: Recordings) -> str | None:
    """A line that names sites that are silent over all images; None without them."""
    places = np.flatnonzero(silent(recordings.averages))
    if not places.size:
        return None
    names = some(recordings.site_ids[place] for place in places)
    return (
        f"{places.size} of {recordings.n_sites} sites are silent, as they answer all but fewer than "
        f"{FEWEST} images alike: {names}. A score leaves them out."
    )
