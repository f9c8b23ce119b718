"""Small copies of the stimuli that a report shows, kept in the run, so that it can be moved."""

import base64
import io
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from nrp_onnx.activations.images import decode_image
from nrp_onnx.files import whole_file
from nrp_onnx.recordings import Recordings
from nrp_onnx.report.site_scores import ShownSite, shown_sites
from nrp_onnx.scoring.finished_run import FinishedRun, read_run
from nrp_onnx.scoring.run_folder import THUMBNAILS_FILE

_PIXELS = 112
#: Best and worst sites of a region that are shown with their images; fewer where regions are many.
_SITES_EACH, _FEW_REGIONS = 3, 3


def all_shown_sites(run: FinishedRun) -> list[ShownSite]:
    """The sites that the report of a run shows, region by region."""
    n_each = _SITES_EACH if len(run.region_names) <= _FEW_REGIONS else 1
    return [site for region in run.region_names for site in shown_sites(run, region, n_each)]


def keep_shown_images(folder: Path, recordings: Recordings) -> None:
    """Keep a JPEG, at most 112 pixels wide and high, of each image that the report of a run shows.

    Raises:
        RecordingsError: if an image does not open.
    """
    run = read_run(folder)
    names = sorted(
        {
            run.stimulus_ids[image]
            for site in all_shown_sites(run)
            for image in (*site.driving, *site.surprising)
        }
    )
    paths = dict(zip(recordings.stimulus_ids, recordings.stimulus_paths, strict=True))
    columns = {
        "stimulus_id": pa.array(names, pa.string()),
        "image": pa.array([_thumbnail(paths[name]) for name in names], pa.binary()),
    }
    with whole_file(folder / THUMBNAILS_FILE) as part:
        pq.write_table(pa.table(columns), part)


def read_shown_images(folder: Path) -> dict[str, str]:
    """The kept images of a run as data URIs; none if it has none."""
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
