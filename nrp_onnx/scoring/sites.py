"""The numbers of each single site, from held-out predictions: sites.csv."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from nrp_onnx.files import whole_file
from nrp_onnx.recordings import Recordings
from nrp_onnx.recordings.tables import write_table
from nrp_onnx.scoring.folds import Fits
from nrp_onnx.significance import site_tests
from nrp_onnx.statistics import mean_of_images, noise_corrected_r2

#: Columns of the receptive field that the masked ridge finds for a site: centre and standard deviation
#: of its Gaussian, as shares of the image's width and height, from the left and from the top.
FIELDS = ("rf_x", "rf_y", "rf_width")
#: What the headline predictor stands beside at each site.
BESIDE = ("ridge", "mean")


def site_columns(
    regions: Sequence[str],
    fits: Fits,
    rates: np.ndarray,
    held_out: np.ndarray,
    r: Mapping[str, np.ndarray],
    reliability: np.ndarray,
    noise: np.ndarray,
) -> dict[str, np.ndarray]:
    """The columns of sites.csv: float64 (n_sites,) each, NaN where there is no number.

    Errors are in units of the score. The tests against `BESIDE` are those of
    `nrp_onnx.significance.site_tests`, with the sites of a region as one family.

    Args:
        regions: of each site.
        rates: recorded, float64 (n_stimuli, n_sites).
        held_out: places of the held-out images.
        r: of each predictor at each site.
        reliability: of each site.
        noise: expected absolute noise of the averages, float64 (n_held_out, n_sites), in units of the
            score.
    """
    errors = {
        name: ((fits.predictions[name] - rates) / fits.scales)[held_out]
        for name in dict.fromkeys((fits.headline, *BESIDE))
        if name in fits.predictions
    }
    mae = {name: mean_of_images(np.abs(found)) for name, found in errors.items()}
    mse = {name: mean_of_images(found**2) for name, found in errors.items()}
    own, floor = fits.headline, mean_of_images(noise)
    columns = {
        "reliability": reliability,
        "noise_floor": floor,
        "mae": mae[own],
        "mse": mse[own],
        "r": r[own],
        "r_normalised": r[own] / ceiling_of(reliability),
        "r2_normalised": noise_corrected_r2(r[own], reliability),
    }
    if "mean" in mae:
        way = mae["mean"] - floor
        columns["explained"] = np.where(way > 0, mae["mean"] - mae[own], np.nan) / np.where(
            way > 0, way, np.nan
        )
    if fits.fields is not None:
        columns |= dict(zip(FIELDS, _fields_of_sites(fits.fields).T, strict=True))
    for name in BESIDE:
        if name not in errors:
            continue
        columns |= {f"mae_{name}": mae[name], f"mse_{name}": mse[name], f"r_{name}": r[name]}
        columns |= _tests(regions, errors[own], errors[name], name) if name != own else {}
    return columns


def _fields_of_sites(fields: np.ndarray) -> np.ndarray:
    """Centre and width of each site's mask, the median over folds: float64 (n_sites, 3).

    NaN where the site sees the whole image alike in half of the folds or more.
    """
    somewhere = ~np.isnan(fields[..., 0])
    found = np.full(fields.shape[1:], np.nan)
    for site in np.flatnonzero(2 * somewhere.sum(axis=0) > len(fields)):
        found[site] = np.median(fields[somewhere[:, site], site], axis=0)
    return found


def _tests(
    regions: Sequence[str], errors: np.ndarray, other: np.ndarray, name: str
) -> dict[str, np.ndarray]:
    """p and q of each site, the regions one after the other."""
    p, q = np.full(len(regions), np.nan), np.full(len(regions), np.nan)
    for region in dict.fromkeys(regions):
        sites = np.flatnonzero(np.array(regions) == region)
        found = site_tests(errors[:, sites], other[:, sites])
        p[sites], q[sites] = found.p, found.q
    return {f"p_{name}": p, f"q_{name}": q}


def ceiling_of(reliability: np.ndarray) -> np.ndarray:
    """The highest correlation that a predictor can have with the recorded averages of each site."""
    ceiling: np.ndarray = np.sqrt(np.where(reliability > 0, reliability, np.nan))
    return ceiling


def write_sites(path: Path, recordings: Recordings, columns: Mapping[str, np.ndarray]) -> None:
    """Write sites.csv, one row a site; a field is empty where there is no number."""
    texts = {name: [_text(value) for value in values] for name, values in columns.items()}
    with whole_file(path) as part:
        write_table(part, {"site_id": recordings.site_ids, "region": recordings.regions, **texts})


def _text(value: float) -> str:
    return "" if np.isnan(value) else f"{value:.6g}"
