"""Predicts rates for images with an exported predictor."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from nrp_onnx.activations.images import DecodedImages, of_one_size
from nrp_onnx.activations.session import open_session
from nrp_onnx.backbone.feature_graph import IMAGES
from nrp_onnx.backbone.model import read_onnx
from nrp_onnx.errors import ModelError
from nrp_onnx.export.onnx_models import RATES, SITES_KEY, UNITS_KEY
from nrp_onnx.files import whole_file
from nrp_onnx.notes import Notes

_BATCH = 16


def predict(
    predictor: Path, images: Sequence[Path], device: str = "auto", notes: Notes | None = None
) -> tuple[np.ndarray, dict[str, Any]]:
    """Predict the rates of every site for some images.

    Returns:
        Rates, float32 (n_images, n_sites), and facts: ``sites`` (their ids) and ``units``.

    Raises:
        ModelError: if the file is no predictor that ``score`` exported.
        RecordingsError: if an image does not open.
    """
    if not predictor.is_file():
        raise ModelError("no such predictor", where=predictor, expected="predictor.onnx of a run")
    read_onnx(predictor)  # refuses data from outside its folder
    session = open_session(
        predictor.read_bytes(), device, notes or Notes(), predictor, predictor.parent
    )
    metadata = session.get_modelmeta().custom_metadata_map
    (given, *others), outputs = session.get_inputs(), session.get_outputs()
    if given.name != IMAGES or others or outputs[0].name != RATES or SITES_KEY not in metadata:
        raise ModelError(
            "this is no predictor",
            where=predictor,
            expected=f"one input {IMAGES} and one output {RATES}",
            found=f"{given.name} and {outputs[0].name}",
            fix="Give the predictor.onnx that nrp-onnx score made.",
        )
    batch = given.shape[0] if isinstance(given.shape[0], int) else _BATCH
    sites = json.loads(metadata[SITES_KEY])
    rates: list[np.ndarray] = []
    with DecodedImages(images) as decoded:
        while taken := decoded.take(batch):
            block = np.empty((len(taken), len(sites)), np.float32)
            for places, pixels in of_one_size([image for _, image in taken]):
                block[places] = session.run([RATES], {IMAGES: pixels})[0]
            rates.append(block)
    facts = {"sites": sites, "units": metadata[UNITS_KEY]}
    return np.concatenate(rates), facts


def write_rates(
    path: Path, images: Sequence[Path], rates: np.ndarray, facts: dict[str, Any]
) -> None:
    """Write rates as Parquet: image, then one column a site, units in the schema metadata."""
    columns = {"image": pa.array([str(image) for image in images])}
    columns |= {site: pa.array(rates[:, i]) for i, site in enumerate(facts["sites"])}
    table = pa.table(columns).replace_schema_metadata({UNITS_KEY: facts["units"]})
    with whole_file(path) as part:
        pq.write_table(table, part)
