"""Small copies of the stimuli that a report shows, kept in the run, so that it can be moved."""

import base64
import io
from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from nrp_onnx.activations.images import decode_image
from nrp_onnx.files import whole_file

THUMBNAILS_FILE = "report_images.parquet"
_PIXELS = 112


def write_thumbnails(
    folder: Path, stimulus_ids: Iterable[str], paths: dict[str, Path]
) -> None:
    """Write a JPEG of each stimulus, at most 112 pixels wide and high.

    Args:
        stimulus_ids: of those to be shown.
        paths: the image file of each stimulus.

    Raises:
        RecordingsError: if an image does not open.
    """
    names = sorted(set(stimulus_ids))
    images = [_thumbnail(paths[name]) for name in names]
    table = pa.table({"stimulus_id": pa.array(names, pa.string()),
                      "image": pa.array(images, pa.binary())})  # fmt: skip
    with whole_file(folder / THUMBNAILS_FILE) as part:
        pq.write_table(table, part)


def read_thumbnails(folder: Path) -> dict[str, str]:
    """The thumbnails of a run as data URIs; none if it has none."""
    if not (folder / THUMBNAILS_FILE).is_file():
        return {}
    return {
        row["stimulus_id"]: f"data:image/jpeg;base64,{base64.b64encode(row['image']).decode()}"
        for row in pq.read_table(folder / THUMBNAILS_FILE).to_pylist()
    }


def _thumbnail(path: Path) -> bytes:
    image = Image.fromarray(decode_image(path))
    image.thumbnail((_PIXELS, _PIXELS), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    image.save(file, "JPEG", quality=82)
    return file.getvalue()
