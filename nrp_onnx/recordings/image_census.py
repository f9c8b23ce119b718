"""What kinds of images a folder of stimuli holds, and which of them are the same picture."""

import hashlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nrp_onnx.decoding import Decoded
from nrp_onnx.decoding_pool import DecodedImages, n_cores
from nrp_onnx.progress import progress_bar
from nrp_onnx.recordings.checks import Report

#: Of images that are the same, so many pairs are named.
_MOST_PAIRS = 5
#: Images that are decoded and wait, a core.
_AHEAD = 2


def image_census(paths: Sequence[Path], names: Sequence[str], report: Report) -> dict[str, Any]:
    """Decode every image and count what there is; a few are in memory at a time.

    Args:
        names: of the images, as duplicates are named.
        report: is told of images that do not open, or have no one picture.

    Returns:
        ``modes`` and ``bits`` (a channel) with how many images have each; ``transparent``, ``turned``
        (by EXIF) and ``duplicates`` as counts; ``duplicate_pairs``, the names of a few: an image and
        the first one with the same pixels once both are uint8 RGB.
    """
    modes: Counter[str] = Counter()
    bits: Counter[str] = Counter()
    transparent = turned = duplicates = 0
    pairs: list[list[str]] = []
    first: dict[bytes, int] = {}
    ahead = _AHEAD * n_cores()
    with (
        progress_bar("Decoding the images", len(paths)) as advance,
        DecodedImages(paths) as images,
    ):
        while (found := images.next_one(ahead)) is not None:
            place, image = found
            advance(1)
            if not isinstance(image, Decoded):
                report(image)
                continue
            modes[image.mode] += 1
            bits[str(image.bits)] += 1
            transparent += image.transparent
            turned += image.turned
            pixels = hashlib.sha256(repr(image.pixels.shape).encode())
            pixels.update(image.pixels.tobytes())
            before = first.setdefault(pixels.digest(), place)
            if before != place:
                duplicates += 1
                pairs += [[names[before], names[place]]] if len(pairs) < _MOST_PAIRS else []
    return {
        "modes": dict(modes),
        "bits": dict(bits),
        "transparent": transparent,
        "turned": turned,
        "duplicates": duplicates,
        "duplicate_pairs": pairs,
    }
