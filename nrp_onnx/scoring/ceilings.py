"""What trial noise leaves to be explained, beside the numbers of each region and of each site."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nrp_onnx.files import whole_file
from nrp_onnx.recordings import Recordings, site_reliability
from nrp_onnx.recordings.tables import write_table
from nrp_onnx.scoring.fitting import Fits
from nrp_onnx.scoring.metrics import median, pearson_r_of_sites
from nrp_onnx.scoring.splits import Fold

NO_RELIABILITY = "no site has three stimuli with two repetitions"


def add_ceilings(
    regions: dict[str, dict[str, Any]],
    recordings: Recordings,
    fits: Fits,
    folds: Sequence[Fold],
    seed: int,
    path: Path,
) -> None:
    """Add reliabilities, and correlations relative to them, to the regions; write those of sites.

    A predictor that knows the true rates has a correlation of sqrt(reliability) with the recorded
    averages, so r / sqrt(reliability) is the correlation with the true rates. Sites whose
    reliability is not over 0 have none.

    Args:
        regions: of `score_regions`; each region gets ``reliability`` and ``reliability_reason``, each
            of its predictors ``pearson_r_normalised``.
        path: of the table of sites.
    """
    reliability = site_reliability(recordings, seed)
    ceiling = np.sqrt(np.where(reliability > 0, reliability, np.nan))
    tests = [fold.test for fold in folds]
    r = {
        name: pearson_r_of_sites(predicted, recordings.averages, tests)
        for name, predicted in fits.predictions.items()
    }
    for region, found in regions.items():
        sites = np.array(recordings.regions) == region
        found["reliability"] = median(reliability[sites])
        found["reliability_reason"] = NO_RELIABILITY if found["reliability"] is None else None
        for name, numbers in found["predictors"].items():
            numbers["pearson_r_normalised"] = median(r[name][sites] / ceiling[sites])
    columns = {
        "reliability": reliability,
        "r_nrp": r["nrp"],
        "r_nrp_normalised": r["nrp"] / ceiling,
    }
    texts = {name: [_text(value) for value in values] for name, values in columns.items()}
    with whole_file(path) as part:
        write_table(part, {"site_id": recordings.site_ids, "region": recordings.regions, **texts})


def _text(value: float) -> str:
    return "" if np.isnan(value) else f"{value:.6g}"
