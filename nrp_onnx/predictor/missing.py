"""Sites that miss the same responses can be fitted together."""

from collections.abc import Iterator

import numpy as np


def response_patterns(there: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Places of images, and of the sites that have responses to just these.

    Args:
        there: bool (n_images, n_sites).
    """
    sites_of: dict[bytes, list[int]] = {}
    for site, packed in enumerate(np.packbits(there, axis=0).T):
        sites_of.setdefault(packed.tobytes(), []).append(site)
    for sites in sites_of.values():
        yield np.flatnonzero(there[:, sites[0]]), np.array(sites)
