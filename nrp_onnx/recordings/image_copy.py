"""Copies the images of an importer's source into a recordings folder."""

from collections.abc import Sequence
from pathlib import Path

from nrp_onnx.progress import progress_bar
from nrp_onnx.recordings.image_source import ImageSource
from nrp_onnx.recordings.images import check_image


def copy_images(source: ImageSource, filenames: Sequence[str], folder: Path) -> None:
    """Copy images byte for byte into ``folder``, each checked to open.

    Raises:
        RecordingsError: if one does not open.
    """
    names = dict.fromkeys(filenames)
    with progress_bar("Copying the images", len(names)) as advance:
        for filename in names:
            data = source.read(filename)
            check_image(data, f"{source.path}, {filename}")
            place = folder / filename
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(data)
            advance(1)
