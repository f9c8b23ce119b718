"""What an extraction will take: bytes an image, bytes in all, free disk; it refuses what will not fit."""

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from errno import ENOSPC
from pathlib import Path

from nrp_onnx.activations.layer_writer import ROWS
from nrp_onnx.backbone.feature_graph import Feature
from nrp_onnx.backbone.reductions import fullest_within
from nrp_onnx.errors import NrpOnnxError, OutputError
from nrp_onnx.notes import Notes

#: Ids, lengths of lists and the places of row groups, beside the activations.
_OVERHEAD = 1.02


def check_space(
    folder: Path, features: Sequence[Feature], n_images: int, n_done: int, notes: Notes
) -> None:
    """Say what the activations take, and refuse them if the disk has no room.

    Args:
        folder: where they go; it exists.
        n_done: images that are on disk already.

    Raises:
        OutputError: if they do not fit; it names the reduction that would.
    """
    an_image = 4 * sum(feature.n_features for feature in features)
    waiting = min(ROWS, n_images)  # they are on disk beside the files
    needed = int(an_image * (n_images - n_done + waiting) * _OVERHEAD)
    free = shutil.disk_usage(folder).free
    notes.log(
        f"extracting {len(features)} layers of {n_images:,} images: {an_image:,} bytes an image, "
        f"{size(an_image * n_images)} in all, {size(free)} free on disk"
    )
    if needed <= free:
        return
    layers = [feature.layer for feature in features]
    smaller = fullest_within(layers, n_images + waiting, free / _OVERHEAD)
    if smaller is None:
        fix = (
            "Free some space, choose fewer layers or a smaller reduction, or another disk with -o."
        )
    else:
        kind = max(smaller, key=lambda reduction: (reduction.kind == "avgpool", reduction.k))
        fits = sum(r.n_features(layer) for r, layer in zip(smaller, layers, strict=True))
        fix = f"--reduce {kind} would need {size(4 * fits * (n_images + waiting))}."
    raise OutputError(
        "the activations do not fit on this disk",
        where=folder,
        expected=f"{size(needed)} free",
        found=size(free),
        fix=fix,
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
