"""The layer table: which tensors of an ONNX graph are layers, under the names their framework gave them.

It travels in the model's ``metadata_props`` as JSON, so that a user can name layers as in the
framework that made the model, whatever the exporter called the tensors.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from nrp_onnx.errors import ModelError

LAYERS_KEY = "nrp_onnx.layers"
PREPROCESSING_KEY = "nrp_onnx.preprocessing"
SOURCE_KEY = "nrp_onnx.source"
PARITY_KEY = "nrp_onnx.parity"

#: Names of the axes after the batch axis: channels first, channels last, tokens, plain features.
LAYOUTS = ("NCHW", "NHWC", "NTC", "NC")


@dataclass(frozen=True)
class Layer:
    """One layer of a backbone.

    Attributes:
        name: the framework's name of the layer (torch module path, Keras layer name, ...).
        tensor: the name of the tensor in the ONNX graph.
        shape: its shape for one image, without the batch axis; None where it is not known.
        layout: ``NCHW``, ``NHWC``, ``NTC`` (tokens, then channels) or ``NC``; None where unknown.
        op: the ONNX operator, or the framework's layer type, that makes it.
        depth: its place in the order of computation, from 0.
    """

    name: str
    tensor: str
    shape: tuple[int, ...] | None
    layout: str | None
    op: str
    depth: int

    @property
    def n_features(self) -> int | None:
        """Numbers an image has in this layer; None where the shape is not known."""
        return None if self.shape is None else math.prod(self.shape)


def guess_layout(shape: Sequence[int] | None) -> str | None:
    """The usual layout of an ONNX activation of this shape (without the batch axis)."""
    if shape is None:
        return None
    return {1: "NC", 2: "NTC", 3: "NCHW"}.get(len(shape))


def layers_to_json(layers: Sequence[Layer]) -> str:
    """The layer table as JSON: a list of objects with the attributes of `Layer`."""
    return json.dumps([asdict(layer) for layer in layers], separators=(",", ":"))


def layers_from_metadata(metadata: Mapping[str, str], where: object) -> list[Layer] | None:
    """The layer table that a model's metadata holds, or None where it holds none.

    Raises:
        ModelError: if there is one and it cannot be read.
    """
    text = metadata.get(LAYERS_KEY)
    if text is None:
        return None
    try:
        rows = json.loads(text)
        return [
            Layer(**{**row, "shape": None if row["shape"] is None else tuple(row["shape"])})
            for row in rows
        ]
    except (ValueError, TypeError, KeyError) as error:
        raise ModelError(
            f"the layer table in the metadata key {LAYERS_KEY} is damaged",
            where=where,
            expected="a JSON list of layers",
            found=error,
            fix="Convert the model again.",
        ) from None
