"""The layer table: which tensors of an ONNX graph are layers, under the names their framework gave them.

It travels in the model's ``metadata_props`` as JSON, so that a user can name layers as in the
framework that made the model, whatever the exporter called the tensors.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from nrp_onnx.errors import ModelError

LAYERS_KEY = "nrp_onnx.layers"
PREPROCESSING_KEY = "nrp_onnx.preprocessing"
SOURCE_KEY = "nrp_onnx.source"
PARITY_KEY = "nrp_onnx.parity"

#: Names of the axes after the batch axis: channels first, channels last, tokens, plain features.
LAYOUTS = ("NCHW", "NHWC", "NTC", "NC")


#: Tokens that may come before those of the patches: a class token, one for distillation, registers.
_MOST_EXTRA_TOKENS = 8


@dataclass(frozen=True)
class Grid:
    """Where the features of a layer lie in the image: which axes are space.

    Attributes:
        height, width: cells of the grid that covers the image.
        channels: numbers of a cell.
        channels_first: whether an image is (channels, height, width), else (tokens, channels) or
            (height, width, channels).
        extra: tokens before those of the patches, such as a class token; they have no place.
    """

    height: int
    width: int
    channels: int
    channels_first: bool
    extra: int = 0

    @property
    def n_positions(self) -> int:
        return self.height * self.width

    def by_position(self, rows: np.ndarray) -> np.ndarray:
        """Activations (n, D) as (n, P, channels), without the extra tokens: a view."""
        if self.channels_first:
            return rows.reshape(len(rows), self.channels, -1).swapaxes(1, 2)
        return rows.reshape(len(rows), -1, self.channels)[:, self.extra :]

    def centres(self) -> np.ndarray:
        """Centres of the cells, row by row: float64 (P, 2), x and y as shares of the image's size."""
        y, x = ((np.arange(n) + 0.5) / n for n in (self.height, self.width))
        return np.stack([np.tile(x, self.height), np.repeat(y, self.width)], axis=1)


def grid_of(shape: Sequence[int] | None, layout: str | None) -> Grid | None:
    """The grid of a layer of this shape (without the batch axis); None where it has no more than a cell.

    Tokens are taken for a square grid of patches, row by row, after as few other tokens as leave a
    square: 197 tokens are a class token and 14 x 14 patches.
    """
    if shape is None or len(shape) < 2:
        return None
    if layout == "NCHW" and len(shape) == 3:
        grid = Grid(shape[1], shape[2], shape[0], True)
    elif layout == "NHWC" and len(shape) == 3:
        grid = Grid(shape[0], shape[1], shape[2], False)
    elif layout == "NTC" and len(shape) == 2:
        n_tokens, channels = shape
        side = math.isqrt(n_tokens)
        extra = n_tokens - side**2
        if extra > _MOST_EXTRA_TOKENS:
            return None
        grid = Grid(side, side, channels, False, extra)
    else:
        return None
    return grid if grid.n_positions > 1 else None


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
    def grid(self) -> Grid | None:
        """Which of its axes are space; None where none is."""
        return grid_of(self.shape, self.layout)

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
