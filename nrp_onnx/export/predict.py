"""An exported predictor, opened with ONNX Runtime alone: images in, firing rates out."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from nrp_onnx.activations.images import of_one_size
from nrp_onnx.activations.session import open_session
from nrp_onnx.backbone.feature_graph import IMAGES
from nrp_onnx.backbone.model import read_onnx
from nrp_onnx.decoding_pool import DecodedImages
from nrp_onnx.errors import ModelError, OptionError, words_of_python
from nrp_onnx.files import whole_file
from nrp_onnx.notes import Notes

#: The output of a predictor, and what its metadata say.
RATES = "rates"
SITES_KEY, REGIONS_KEY, UNITS_KEY = "nrp_onnx.sites", "nrp_onnx.regions", "nrp_onnx.units"

_BATCH = 16


class Predictor:
    """The predictor.onnx of a run.

    Example:
        >>> import nrp_onnx as nrp
        >>> predictor = nrp.load_predictor("runs/a/predictor.onnx")  # doctest: +SKIP
        >>> predictor.predict(["cat.png"]).shape == (1, len(predictor.sites))  # doctest: +SKIP
        True

    Attributes:
        path: of the file.
        sites: ids of the sites, in the order of the rates.
        regions: of each site.
        units: of the rates, those of the recordings.
        provider: ONNX Runtime's execution provider.
    """

    def __init__(self, path: Path, device: str = "auto", notes: Notes | None = None) -> None:
        if not path.is_file():
            raise ModelError("no such predictor", where=path, expected="predictor.onnx of a run")
        read_onnx(path)  # refuses data from outside its folder
        self._session = open_session(path.read_bytes(), device, notes or Notes(), path, path.parent)
        metadata = self._session.get_modelmeta().custom_metadata_map
        (given, *others), outputs = self._session.get_inputs(), self._session.get_outputs()
        if given.name != IMAGES or others or outputs[0].name != RATES or SITES_KEY not in metadata:
            raise ModelError(
                "this is no predictor",
                where=path,
                expected=f"one input {IMAGES} and one output {RATES}",
                found=f"{given.name} and {outputs[0].name}",
                fix="Give the predictor.onnx that nrp-onnx score made.",
            )
        self.path = path
        self.sites: tuple[str, ...] = tuple(json.loads(metadata[SITES_KEY]))
        self.regions: tuple[str, ...] = tuple(json.loads(metadata.get(REGIONS_KEY, "[]")))
        self.units: str = metadata[UNITS_KEY]
        self.provider: str = self._session.get_providers()[0]
        self._batch = given.shape[0] if isinstance(given.shape[0], int) else _BATCH

    def predict(self, images: Sequence[str | Path] | np.ndarray) -> np.ndarray:
        """The rates of every site.

        Args:
            images: paths of image files, of any sizes; or one uint8 RGB array
                (n_images, height, width, 3).

        Returns:
            float32 (n_images, n_sites), in `units`.

        Raises:
            OptionError: if an array has another shape or dtype.
            RecordingsError: if an image does not open.
        """
        rates = [np.empty((0, len(self.sites)), np.float32)]
        for batch in self._batches(images):
            block = np.empty((len(batch), len(self.sites)), np.float32)
            for places, pixels in of_one_size(batch):
                block[places] = self._session.run([RATES], {IMAGES: pixels})[0]
            rates.append(block)
        return np.concatenate(rates)

    def _batches(self, images: Sequence[str | Path] | np.ndarray) -> Iterator[Sequence[np.ndarray]]:
        if isinstance(images, np.ndarray):
            if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3:
                raise OptionError(
                    "these are no images",
                    where="images",
                    expected="uint8 (n_images, height, width, 3), or paths",
                    found=f"{images.dtype} {images.shape}",
                )
            for start in range(0, len(images), self._batch):
                yield list(images[start : start + self._batch])
            return
        with DecodedImages([Path(image) for image in images]) as decoded:
            while taken := decoded.take(self._batch):
                yield [image for _, image in taken]

    def __repr__(self) -> str:
        return f"<Predictor {self.path.name}: {len(self.sites)} sites, rates in {self.units}>"


@words_of_python()
def load_predictor(path: str | Path, device: str = "auto") -> Predictor:
    """Open the predictor.onnx of a run; PyTorch is not needed.

    Args:
        device: ``auto``, ``cpu``, ``cuda`` or ``tensorrt``.

    Raises:
        ModelError: if the file is no predictor that ``score`` exported.
        DeviceError: if the device does not work.
    """
    return Predictor(Path(path), device)


def write_rates(
    path: Path, images: Sequence[Path], rates: np.ndarray, predictor: Predictor
) -> None:
    """Write rates as Parquet: image, then one column a site, units in the schema metadata."""
    columns = {"image": pa.array([str(image) for image in images])}
    columns |= {site: pa.array(rates[:, i]) for i, site in enumerate(predictor.sites)}
    table = pa.table(columns).replace_schema_metadata({UNITS_KEY: predictor.units})
    with whole_file(path) as part:
        pq.write_table(table, part)
