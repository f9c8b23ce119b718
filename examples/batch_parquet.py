"""Rates of a Parquet file of images: python batch_parquet.py predictor.onnx images.parquet rates.parquet

images.parquet has the columns ``id`` and ``image``, the bytes of an encoded image such as a PNG. DuckDB
reads some rows at a time, so that memory does not grow with the file. rates.parquet has the same ids
in the same order and one column a site; its metadata have the units.
"""

import io
import json
import sys

import duckdb
import numpy as np
import onnxruntime
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

ROWS = 256


def main(model: str, images: str, out: str) -> None:
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    metadata = session.get_modelmeta().custom_metadata_map
    sites = json.loads(metadata["nrp_onnx.sites"])
    with duckdb.connect() as database:
        found = database.sql("SELECT id, image FROM read_parquet(?)", params=[images])
        reader = found.to_arrow_reader(ROWS)
        schema = pa.schema(
            [reader.schema.field("id"), *(pa.field(site, pa.float32()) for site in sites)],
            metadata={"nrp_onnx.units": metadata["nrp_onnx.units"]},
        )
        with pq.ParquetWriter(out, schema) as writer:
            for batch in reader:
                rates = _rates(session, batch.column("image").to_pylist())
                columns = [batch.column("id"), *map(pa.array, rates.T)]
                writer.write_batch(pa.record_batch(columns, schema=schema))


def _rates(session: onnxruntime.InferenceSession, encoded: list[bytes]) -> np.ndarray:
    """Float32 (n_images, n_sites); images of one size go through the model together."""
    pixels = [np.asarray(Image.open(io.BytesIO(image)).convert("RGB")) for image in encoded]
    rates = np.empty((len(pixels), session.get_outputs()[0].shape[1]), np.float32)
    for shape in {image.shape for image in pixels}:
        places = [place for place, image in enumerate(pixels) if image.shape == shape]
        stacked = np.stack([pixels[place] for place in places])
        rates[places] = session.run(["rates"], {"images": stacked})[0]
    return rates


if __name__ == "__main__":
    main(*sys.argv[1:])
