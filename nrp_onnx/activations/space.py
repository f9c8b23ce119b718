"""What an extraction will take, and what there is of it: bytes on disk, which it refuses if they do not
fit, and memory."""

import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from errno import ENOSPC
from mmap import PAGESIZE
from pathlib import Path
from typing import NamedTuple

from nrp_onnx.backbone.feature_graph import Feature
from nrp_onnx.backbone.reductions import fullest_within
from nrp_onnx.errors import NrpOnnxError, OutputError
from nrp_onnx.notes import Notes

#: Where Linux says how much memory there is.
_PROC = Path("/proc")
#: Ids, lengths of lists and the places of row groups, beside the activations.
_OVERHEAD = 1.02


def check_space(
    folder: Path,
    features: Sequence[Feature],
    n_images: int,
    n_done: int,
    n_joins: int,
    notes: Notes,
) -> None:
    """Say what the activations take, and refuse them if the disk has no room.

    A layer's ranges are removed when its file is whole. So there has to be room for some layers twice.

    Args:
        folder: where they go; it exists.
        n_done: images whose ranges are on disk already.
        n_joins: layers whose ranges are joined at the same time.

    Raises:
        OutputError: if they do not fit; it names the reduction that would.
    """

    def bytes_needed(n_features: Sequence[int], n_done: int = 0) -> int:
        twice = sum(sorted(n_features)[-n_joins:])
        return int(4 * (sum(n_features) * (n_images - n_done) + twice * n_images) * _OVERHEAD)

    n_features = [feature.n_features for feature in features]
    an_image = 4 * sum(n_features)
    needed = bytes_needed(n_features, n_done)
    free = shutil.disk_usage(folder).free
    notes.log(
        f"extracting {len(features)} layers of {n_images:,} images: {an_image:,} bytes an image, "
        f"{size(an_image * n_images)} in all, {size(needed)} needed while files are joined, "
        f"{size(free)} free on disk"
    )
    if needed <= free:
        return
    layers, most = [feature.layer for feature in features], float(free)
    fix = "Free some space, choose fewer layers or a smaller reduction, or another disk with -o."
    while (smaller := fullest_within(layers, n_images, most)) is not None:
        n_features = [r.n_features(layer) for r, layer in zip(smaller, layers, strict=True)]
        if bytes_needed(n_features) <= free:
            kind = max(smaller, key=lambda reduction: (reduction.kind == "avgpool", reduction.k))
            fix = f"--reduce {kind} would need {size(bytes_needed(n_features))}."
            break
        most = 4 * sum(n_features) * n_images - 1
    raise OutputError(
        "the activations do not fit on this disk",
        where=folder,
        expected=f"{size(needed)} free",
        found=size(free),
        fix=fix,
    )


class Memory(NamedTuple):
    """Bytes of this machine, those that a process could still take, and those of this process."""

    total: int
    available: int
    used: int


def memory() -> Memory | None:
    """The memory of this machine; None on other systems than Linux."""
    try:
        facts = (_PROC / "meminfo").read_text("ascii")
        pages = (_PROC / "self/statm").read_text("ascii").split()
    except OSError:
        return None
    kilobytes = dict(re.findall(r"^(\w+):\s+(\d+) kB$", facts, re.MULTILINE))
    return Memory(
        1024 * int(kilobytes["MemTotal"]),
        1024 * int(kilobytes["MemAvailable"]),
        PAGESIZE * int(pages[1]),
    )


def size(n_bytes: float) -> str:
    """Bytes as people read them, in binary units."""
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if n_bytes < 1024:
            break
        n_bytes, unit = n_bytes / 1024, "TiB"
    return f"{n_bytes:,.0f} bytes" if unit == "bytes" else f"{n_bytes:,.1f} {unit}"


@contextmanager
def writing_to(folder: object) -> Iterator[None]:
    """Turn what the file system says while the block writes to ``folder`` into a user's error.

    Raises:
        OutputError: for a full disk, a folder that cannot be written, and the like.
    """
    try:
        yield
    except NrpOnnxError:
        raise
    except OSError as error:
        full = error.errno == ENOSPC
        raise OutputError(
            "the disk is full" if full else "the activations cannot be written",
            where=folder,
            found=error.strerror or error,
            fix="Free some space and run this again: it goes on where it stopped."
            if full
            else "Choose another folder with -o.",
        ) from None
