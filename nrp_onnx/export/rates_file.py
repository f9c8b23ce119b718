"""Predicted rates, written while they come: as Parquet, CSV, NumPy or JSON."""

import csv
import json
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from nrp_onnx.errors import OptionError
from nrp_onnx.export.predict import UNITS_KEY, Predictor
from nrp_onnx.files import whole_file

#: Takes the names of some images and their rates, float32 (n, n_sites).
Writer = Callable[[Sequence[str], np.ndarray], None]
ENDINGS = (".parquet", ".csv", ".npy")
#: Rates in a row group of Parquet: 16 MiB.
_RATES_A_GROUP = 2**22


def check_ending(path: Path) -> None:
    """Refuse the name of a file that does not say its format.

    Raises:
        OptionError: if it ends otherwise than in .parquet, .csv or .npy.
    """
    if path.suffix.lower() not in ENDINGS:
        raise OptionError(
            "the ending does not say in what format rates are to be written",
            where=f"-o {path}",
            expected=f"a name that ends in {', '.join(ENDINGS[:-1])} or {ENDINGS[-1]}",
            found=path.suffix or "no ending",
        )


@contextmanager
def rates_file(path: Path, predictor: Predictor, n_images: int) -> Iterator[Writer]:
    """Write rates to a file, which is whole or not there; memory holds a few of them.

    - .parquet: ``image``, then one float32 column a site; ``nrp_onnx.units`` in the schema's metadata.
    - .csv: the same columns, rates with as many digits as float32 needs.
    - .npy: float32 (n_images, n_sites), rows in the order of the images; it has no place for their
      names.

    Args:
        predictor: whose sites and units they are.
        n_images: how many rows will be written.

    Yields:
        What writes the next rows.

    Raises:
        OptionError: if the ending is another.
    """
    check_ending(path)
    write_as = {".parquet": _parquet, ".csv": _csv_file, ".npy": _npy}[path.suffix.lower()]
    with whole_file(path) as part, write_as(part, predictor, n_images) as write:
        yield write


@contextmanager
def rates_as_csv(file: TextIO, predictor: Predictor) -> Iterator[Writer]:
    """Write rates as CSV to an open file, such as stdout."""
    rows = csv.writer(file, lineterminator="\n")
    rows.writerow(["image", *predictor.sites])

    def write(names: Sequence[str], rates: np.ndarray) -> None:
        # The text of a float32 has the digits that bring it back, and no more.
        rows.writerows([name, *map(str, row)] for name, row in zip(names, rates, strict=True))

    yield write


@contextmanager
def rates_as_json(file: TextIO, predictor: Predictor) -> Iterator[Writer]:
    """Write one JSON document to an open file: predictor, units, sites, regions, and rates by image.

    A rate that is no finite number is null, as JSON has none.
    """
    facts = {
        "predictor": str(predictor.path),
        "units": predictor.units,
        "sites": predictor.sites,
        "regions": predictor.regions,
    }
    file.write(json.dumps(facts, ensure_ascii=False)[:-1] + ', "rates": [')
    before = "\n"

    def write(names: Sequence[str], rates: np.ndarray) -> None:
        nonlocal before
        for name, row in zip(names, rates, strict=True):
            numbers = ", ".join(str(rate) if math.isfinite(rate) else "null" for rate in row)
            image = json.dumps(name, ensure_ascii=False)
            file.write(f'{before}{{"image": {image}, "rates": [{numbers}]}}')
            before = ",\n"

    yield write
    file.write("\n]}\n")


@contextmanager
def _csv_file(path: Path, predictor: Predictor, n_images: int) -> Iterator[Writer]:
    with (
        path.open("w", encoding="utf-8", newline="") as file,
        rates_as_csv(file, predictor) as write,
    ):
        yield write


@contextmanager
def _npy(path: Path, predictor: Predictor, n_images: int) -> Iterator[Writer]:
    shape = (n_images, len(predictor.sites))
    with path.open("wb") as file:
        header = {"descr": "<f4", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)

        def write(names: Sequence[str], rates: np.ndarray) -> None:
            file.write(rates.astype("<f4").tobytes())

        yield write


@contextmanager
def _parquet(path: Path, predictor: Predictor, n_images: int) -> Iterator[Writer]:
    columns = [("image", pa.string()), *((site, pa.float32()) for site in predictor.sites)]
    schema = pa.schema(columns, metadata={UNITS_KEY: predictor.units})
    a_group = max(1, _RATES_A_GROUP // max(1, len(predictor.sites)))
    names: list[str] = []
    blocks: list[np.ndarray] = []

    with pq.ParquetWriter(path, schema) as file:

        def flush() -> None:
            if names:
                rates = np.concatenate(blocks)
                arrays = [pa.array(names), *(pa.array(column) for column in rates.T)]
                file.write_table(pa.Table.from_arrays(arrays, schema=schema))
                names.clear()
                blocks.clear()

        def write(some: Sequence[str], rates: np.ndarray) -> None:
            names.extend(some)
            blocks.append(rates)
            if len(names) >= a_group:
                flush()

        yield write
        flush()
