"""How well each single site is predicted, and the images that show it."""

import base64
import csv
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from nrp_onnx.decoding import decode_image
from nrp_onnx.files import whole_file
from nrp_onnx.recordings import Recordings
from nrp_onnx.scoring.run import FinishedRun, read_run
from nrp_onnx.scoring.run_folder import SITES_FILE, THUMBNAILS_FILE
from nrp_onnx.statistics import pearson_r_of_sites

_IMAGES_A_SITE = 3
_NUMBERS = ("reliability", "rf_x", "rf_y", "rf_width")
#: Sites in a figure, at most.
_MOST_POINTS = 2000


@dataclass(frozen=True)
class ShownSite:
    """A site with the images that show how it is predicted.

    Attributes:
        place: of the site among all.
        rank: 1 for the site of its region that is predicted best.
        n_sites: of its region that have a correlation.
        driving: places of the held-out images with its highest recorded rates.
        surprising: places of those with the largest errors.
    """

    place: int
    rank: int
    n_sites: int
    driving: list[int]
    surprising: list[int]


def site_errors(run: FinishedRun, predictor: str) -> np.ndarray:
    """Mean absolute error of each site in units of the score, float64 array (n_sites,)."""
    errors = run.absolute_errors(predictor)
    n = (~np.isnan(errors)).sum(axis=0)
    means = np.full(n.shape, np.nan)
    np.divide(np.nansum(errors, axis=0), n, out=means, where=n > 0)
    return means


def site_correlations(run: FinishedRun, predictor: str) -> np.ndarray:
    """Pearson's r of each site, float64 (n_sites,): `nrp_onnx.statistics.pearson_r_of_sites`."""
    folds = [np.flatnonzero(run.fold == number) for number in np.unique(run.fold)]
    return pearson_r_of_sites(run.predictions[predictor], run.recorded, folds)


def site_columns(run: FinishedRun) -> dict[str, np.ndarray]:
    """Reliability and receptive fields from sites.csv, in the order of the run's sites.

    Returns:
        By the name of the column, where it is there: ``reliability``, ``rf_x``, ``rf_y``, ``rf_width``;
        float64 (n_sites,), NaN for a site that has no number.
    """
    path = run.folder / SITES_FILE
    if not path.is_file():
        return {}
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        rows = {row["site_id"]: row for row in reader}
        names = [name for name in _NUMBERS if name in (reader.fieldnames or ())]
    return {
        name: np.array([float(rows.get(site, {}).get(name) or "nan") for site in run.site_ids])
        for name in names
    }


def sampled_sites(run: FinishedRun, region: str) -> tuple[np.ndarray, str]:
    """Places of the sites of a region that figures show, and what to say of it.

    More than 2,000 points cover each other, and a page of 20,000 opens slowly: then 2,000 are drawn at
    random, always the same ones.
    """
    sites = run.sites_of(region)
    if len(sites) <= _MOST_POINTS:
        return sites, ""
    drawn = np.random.default_rng(0).permutation(sites)[:_MOST_POINTS]
    return np.sort(drawn), f" Shown are {_MOST_POINTS:,} of {len(sites):,} sites, drawn at random."


def shown_sites(run: FinishedRun, region: str, n_each: int) -> list[ShownSite]:
    """The best and the worst predicted sites of a region by the headline's r, best first."""
    sites = run.sites_of(region)
    correlations = site_correlations(run, run.headline)[sites]
    sites, correlations = sites[~np.isnan(correlations)], correlations[~np.isnan(correlations)]
    order = sites[np.argsort(-correlations, kind="stable")]
    ranks = list(range(len(order)))
    if len(ranks) > 2 * n_each:
        ranks = ranks[:n_each] + ranks[-n_each:]
    return [
        ShownSite(
            int(order[rank]),
            rank + 1,
            len(order),
            _highest(run.recorded[:, order[rank]]),
            _highest(run.errors[:, order[rank]]),
        )
        for rank in ranks
    ]


def _highest(values: np.ndarray) -> list[int]:
    """Places of the highest values, those that are missing left out."""
    order = np.argsort(-np.where(np.isnan(values), -np.inf, values), kind="stable")
    return [int(place) for place in order[:_IMAGES_A_SITE] if not np.isnan(values[place])]


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
