"""What fits need of memory: whether they work on images or on features, and with how many of each.

Inner products of n images take n^2 numbers, whatever the features. Where that is too much, fits work on
features: as many as a budget holds.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from nrp_onnx.errors import OptionError

#: More images than these are fitted on features: an eigendecomposition of n images takes 10 n^3
#: operations, and with fewer images the one of 4,096 features is no faster.
MOST_IMAGES = 4000
DEFAULT_BUDGET = 4 * 2**30
#: Bytes that Python, PyTorch and ONNX Runtime take.
_BASE = 800 * 2**20
#: Bytes of the products and decompositions that spatial fits hold at a time.
_SPATIAL = 800 * 2**20
#: Bytes that responses, held-out rates and what is made of them take, for each image and site.
_OF_SITES = 64
#: Directions over all layers, channels of a layer, and landmarks: the most, and the fewest that are
#: worth fitting.
_MOST, _FEWEST = (2048, 64, 1024), (256, 16, 256)
#: Masks that sites share. With all 51, fits to 20,000 images take twice as long.
_VIEWS = 24
_UNITS = {"": 1, "KB": 2**10, "MB": 2**20, "GB": 2**30, "TB": 2**40}


@dataclass(frozen=True)
class PrimalSizes:
    """Sizes of fits on features.

    Attributes:
        directions: leading ones of each layer that linear fits see.
        channels: principal components of each layer's channels that spatial fits see, at most.
        landmarks: training images that stand for all of them in kernels.
        views: masks that the sites share, at most. Each takes two decompositions, and passes over all
            images.
        bytes: an estimate of what it all takes at its peak.
        disk_bytes: of coordinates of the images, which lie in the run's folder while it is fitted.
    """

    directions: int
    channels: int
    landmarks: int
    views: int
    bytes: int
    disk_bytes: int


def parse_budget(text: str | None) -> int:
    """Bytes of a budget such as ``4GB`` or ``800MB``; None: 4 GiB.

    Raises:
        OptionError: for anything else.
    """
    if text is None:
        return DEFAULT_BUDGET
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]B)?", text.strip().upper().replace("IB", "B"))
    budget = int(float(found[1]) * _UNITS[found[2] or ""]) if found else 0
    if budget <= 0:
        raise OptionError(
            "this is no amount of memory",
            where="--memory",
            expected="such as 4GB",
            found=repr(text),
        )
    return budget


def dual_bytes(n_images: int, n_layers: int) -> int:
    """Bytes of fits on inner products of the images, at their peak."""
    spans, decompositions = 8 * n_layers + 40, 2 * 60
    return _BASE + (spans + decompositions) * n_images**2


def choose_sizes(
    budget: int, n_images: int, n_sites: int, widths: Sequence[int], positions: Sequence[int]
) -> PrimalSizes | None:
    """Sizes of fits on features that fit into a budget; None where fits on images do.

    Args:
        n_sites: of all regions.
        widths: features of each layer.
        positions: places in the image of each layer, 1 where it has none; empty where nothing sees places.

    Raises:
        OptionError: if no sizes fit.
    """
    if n_images <= MOST_IMAGES and dual_bytes(n_images, len(widths)) <= budget:
        return None
    return primal_sizes(budget, n_images, n_sites, widths, positions)


def primal_sizes(
    budget: int, n_images: int, n_sites: int, widths: Sequence[int], positions: Sequence[int]
) -> PrimalSizes:
    """The largest sizes of fits on features that fit into a budget; see `choose_sizes`."""
    directions, channels, landmarks = _MOST
    while True:
        each = max(1, directions // len(widths))
        total = sum(min(each, width) for width in widths)
        linear = 4 * n_images * 4 * total + 32 * total**2
        kernel = 4 * n_images * (total + 3 * min(landmarks, n_images))
        spatial = 0
        if positions:
            # Coordinates of the images lie on disk, but for those of landmarks.
            spatial = _SPATIAL + 8 * min(landmarks, n_images) * channels * sum(positions)
        of_sites = _OF_SITES * n_images * n_sites
        needed = _BASE + max(linear, kernel, spatial) + of_sites
        if needed <= budget:
            on_disk = 4 * n_images * (total + channels * sum(positions))
            return PrimalSizes(each, channels, landmarks, _VIEWS, needed, on_disk)
        smaller = [
            max(n // 2, few)
            for n, few in zip((directions, channels, landmarks), _FEWEST, strict=True)
        ]
        if smaller == [directions, channels, landmarks]:
            raise OptionError(
                "the fits do not fit into the memory that they may take",
                where="--memory",
                expected=f"{needed / 2**30:.1f} GB or more for {n_images:,} images, {n_sites:,} sites "
                f"and {len(widths)} layers",
                found=f"{budget / 2**30:.1f} GB",
                fix="Give more with --memory, or score fewer layers or a region at a time.",
            )
        directions, channels, landmarks = smaller
