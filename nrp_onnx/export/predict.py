"""An exported predictor, opened with ONNX Runtime alone: images in, firing rates out."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nrp_onnx.activations.images import of_one_size
from nrp_onnx.activations.session import open_session
from nrp_onnx.backbone.feature_graph import IMAGES
from nrp_onnx.backbone.model import read_onnx
from nrp_onnx.decoding_pool import DecodedImages, EncodedImage
from nrp_onnx.errors import ModelError, OptionError, words_of_python
from nrp_onnx.export.card import CARD_SCHEMA, SCHEMA_KEY
from nrp_onnx.export.found_images import find_images
from nrp_onnx.files import exported_file
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
        path = exported_file(path, "predictor.onnx")
        self._session, metadata = open_exported(
            path, "predictor", (IMAGES,), (RATES,), (SITES_KEY, UNITS_KEY), device, notes or Notes()
        )
        self.path = path
        self.sites: tuple[str, ...] = tuple(json.loads(metadata[SITES_KEY]))
        self.regions: tuple[str, ...] = tuple(json.loads(metadata.get(REGIONS_KEY, "[]")))
        self.units: str = metadata[UNITS_KEY]
        self.provider: str = self._session.get_providers()[0]

    def predict(self, images: str | Path | Sequence[str | Path] | np.ndarray) -> np.ndarray:
        """The rates of every site.

        Args:
            images: image files of any sizes, folders, globs and zips, one or several, as `find_images`
                takes them; or one uint8 RGB array (n_images, height, width, 3).

        Returns:
            float32 (n_images, n_sites), in `units`.

        Raises:
            OptionError: if an array has another shape or dtype.
            RecordingsError: if there is no image, or one does not open.
        """
        if isinstance(images, str | Path):
            images = [images]
        found = images if isinstance(images, np.ndarray) else find_images(images)
        return np.concatenate([np.empty((0, len(self.sites)), np.float32), *self.blocks(found)])

    def blocks(self, images: Sequence[Path | EncodedImage] | np.ndarray) -> Iterator[np.ndarray]:
        """The rates a few images at a time, so that memory stays flat however many there are.

        Args:
            images: what `find_images` gives, or an array as for `predict`.

        Yields:
            float32 (a few images, n_sites), in `units`, in the order of the images.
        """
        for batch in _batches(images, batch_size(self._session)):
            block = np.empty((len(batch), len(self.sites)), np.float32)
            for places, pixels in of_one_size(batch):
                block[places] = self._session.run([RATES], {IMAGES: pixels})[0]
            yield block

    def __repr__(self) -> str:
        return f"<Predictor {self.path.name}: {len(self.sites)} sites, rates in {self.units}>"


def batch_size(session: Any) -> int:
    """How many images an exported model takes at a time."""
    size = session.get_inputs()[0].shape[0]
    return size if isinstance(size, int) else _BATCH


def _batches(
    images: Sequence[Path | EncodedImage] | np.ndarray, size: int
) -> Iterator[Sequence[np.ndarray]]:
    if isinstance(images, np.ndarray):
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3:
            raise OptionError(
                "these are no images",
                where="images",
                expected="uint8 (n_images, height, width, 3), or paths",
                found=f"{images.dtype} {images.shape}",
            )
        for start in range(0, len(images), size):
            yield list(images[start : start + size])
        return
    with DecodedImages(images) as decoded:
        while taken := decoded.take(size):
            yield [image for _, image in taken]


def open_exported(
    path: Path,
    what: str,
    inputs: Sequence[str],
    outputs: Sequence[str],
    keys: Sequence[str],
    device: str,
    notes: Notes,
) -> tuple[Any, dict[str, str]]:
    """Open an ONNX file that a score left, after its names and metadata are seen to be ours.

    Args:
        what: ``predictor`` or ``scorer``, for errors.
        inputs, outputs: that it has, in their order.
        keys: that its metadata have.

    Returns:
        ONNX Runtime's session, and the metadata.

    Raises:
        ModelError: if it is another file, damaged, or of a newer version.
        DeviceError: if the device does not work.
    """
    proto = read_onnx(path)  # refuses data from outside its folder
    metadata = {entry.key: entry.value for entry in proto.metadata_props}
    if (schema := metadata.get(SCHEMA_KEY, str(CARD_SCHEMA))) != str(CARD_SCHEMA):
        raise ModelError(
            f"the {what} is made by a newer version of nrp-onnx",
            where=path,
            expected=f"{SCHEMA_KEY} {CARD_SCHEMA}",
            found=schema,
            fix="Update nrp-onnx, or score again with this version.",
        )
    names = [[value.name for value in values] for values in (proto.graph.input, proto.graph.output)]
    missing = [key for key in keys if key not in metadata]
    if names != [list(inputs), list(outputs)] or missing:
        raise ModelError(
            f"this is no {what}",
            where=path,
            expected=_described(inputs, outputs),
            found=_described(*names)
            + (f", without {' and '.join(missing)} in the metadata" if missing else ""),
            fix=f"Give the {what}.onnx that nrp-onnx score made.",
        )
    session = open_session(path.read_bytes(), device, notes, path, path.parent)
    return session, metadata


def _described(inputs: Sequence[str], outputs: Sequence[str]) -> str:
    """The inputs and outputs of a file in words; of many the first three."""
    shown = [
        ", ".join(names[:3]) + (", ..." if len(names) > 3 else "") for names in (inputs, outputs)
    ]
    return f"{shown[0] or 'nothing'} in, {shown[1] or 'nothing'} out"


@words_of_python()
def load_predictor(path: str | Path, device: str = "auto") -> Predictor:
    """Open the predictor.onnx of a run; PyTorch is not needed.

    Args:
        path: of the file, or of the run's folder. The predictor that is fitted to all images is
            taken by the path of its file, predictor_all.onnx.
        device: ``auto``, ``cpu``, ``cuda`` or ``tensorrt``.

    Raises:
        ModelError: if the file is no predictor that ``score`` exported, or of a newer version.
        DeviceError: if the device does not work.
    """
    return Predictor(Path(path), device)
