"""Sites that miss the same responses can be fitted together."""

from collections.abc import Iterator

import numpy as np


def response_patterns(there: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Places of images, and of the sites that have responses to just these.

    Args:
        there: bool (n_images, n_sites).
    """
    patterns, group = np.unique(there, axis=1, return_inverse=True)
    for place in range(patterns.shape[1]):
        yield np.flatnonzero(patterns[:, place]), np.flatnonzero(group.ravel() == place)
