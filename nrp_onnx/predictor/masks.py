"""Gaussian masks over the image, and the inner products of images that are seen through them.

With the coordinates Z_p (n x k) of a layer at position p and a mask m over positions, ridge regression
on the masked coordinates m_p Z_p needs K = sum_p m_p^2 Z_p Z_p^T. The products Z_p Z_p^T of all
positions cost what the one product of a dense ridge costs, and each mask is a weighted sum of them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nrp_onnx.backbone.layers import Grid
from nrp_onnx.predictor.channels import ChannelBasis
from nrp_onnx.threads import map_on_cores


@dataclass(frozen=True)
class Mask:
    """A Gaussian over the image.

    Attributes:
        x, y: its centre, from the left and from the top, as shares of the image's size.
        width: its standard deviation, as a share of the image's size.
    """

    x: float
    y: float
    width: float

    def weights(self, grid: Grid) -> np.ndarray:
        """Of the positions of a grid, with a mean of 1: float64 (P,)."""
        squares = ((grid.centres() - (self.x, self.y)) ** 2).sum(axis=1)
        weights = np.exp(-(squares - squares.min()) / (2 * self.width**2))
        found: np.ndarray = weights / weights.mean()
        return found


_CENTRES = np.arange(1.5, 6) / 7
#: What a site may see: the whole image alike (None), or one of 5 x 5 places in one of two widths.
MASKS: tuple[Mask | None, ...] = (
    None,
    *(Mask(x, y, w) for y in _CENTRES for x in _CENTRES for w in (1 / 7, 2 / 7)),
)

#: Images whose products are computed at a time, and bytes of the products that are held at a time.
_ROWS, _MOST_BYTES = 64, 2**29


@dataclass(frozen=True)
class View:
    """How a site sees the layers.

    Attributes:
        mask: place in `MASKS`.
        layers: how much each layer counts; their mean is 1.
    """

    mask: int
    layers: tuple[float, ...]


#: A layer counts so many times as much as each other one, or so small a part of it.
_MORE, _LESS = 4.0, 1 / 8


def layer_weightings(n_layers: int) -> list[tuple[float, ...]]:
    """What the layers may count: all alike first, then one of them more, or one of them less."""
    rows = [np.ones(n_layers)]
    for place in range(n_layers if n_layers > 1 else 0):
        for factor in (_MORE, _LESS):
            row = np.ones(n_layers)
            row[place] = factor
            rows.append(row)
    return [tuple(float(value) for value in row * n_layers / row.sum()) for row in rows]


def masked_products(
    bases: Sequence[ChannelBasis], images: np.ndarray, views: Sequence[View]
) -> np.ndarray:
    """Inner products of some images over all layers, in some views: float32 (len(views), n, n).

    Each layer has a mean square length of the training images of 1 through each mask, times what it
    counts.

    Args:
        bases: of the layers in which the images differ.
        images: their places, n of them.
    """
    n = len(images)
    products = np.zeros((len(views), n, n), np.float32)
    for place, basis in enumerate(bases):
        factors = squared_weights(basis, place, views).astype(np.float32)
        seen = np.ascontiguousarray(basis.coordinates[images].swapaxes(0, 1))
        for start in range(0, n, _ROWS):
            rows = slice(start, start + _ROWS)
            at_positions = seen[:, rows] @ seen.swapaxes(1, 2)
            products[:, rows] += np.tensordot(factors, at_positions, axes=1)
    return products


def products_with_landmarks(
    bases: Sequence[ChannelBasis], landmarks: np.ndarray, views: Sequence[View]
) -> tuple[np.ndarray, np.ndarray]:
    """Inner products of all images with some of them, in some views; as `masked_products`.

    Args:
        landmarks: places of m images.

    Returns:
        Float32 (len(views), n, m), and the products of each image with itself, float64 (len(views), n).
    """
    n = len(bases[0].coordinates)
    products = np.empty((len(views), n, len(landmarks)), np.float32)
    own = np.empty((len(views), n))
    factors = [squared_weights(basis, place, views) for place, basis in enumerate(bases)]
    known = [
        np.ascontiguousarray(basis.coordinates[landmarks].transpose(1, 2, 0)) for basis in bases
    ]

    def fill(start: int) -> None:
        rows = slice(start, start + _ROWS)
        found: np.ndarray | float = 0.0
        lengths: np.ndarray | float = 0.0
        for basis, of_positions, of_landmarks in zip(bases, factors, known, strict=True):
            seen = np.ascontiguousarray(basis.coordinates[rows].swapaxes(0, 1))
            apart = seen @ of_landmarks
            found = found + np.tensordot(of_positions.astype(np.float32), apart, axes=1)
            lengths = lengths + of_positions @ np.square(seen, dtype=np.float64).sum(axis=2)
        products[:, rows], own[:, rows] = found, lengths

    map_on_cores(fill, range(0, n, _ROWS))
    return products, own


def squared_weights(basis: ChannelBasis, place: int, views: Sequence[View]) -> np.ndarray:
    """What the squared coordinates of a layer are multiplied by: float64 (len(views), P).

    Args:
        place: of the layer among those that the views weigh.
    """
    n = basis.grid.n_positions
    of_masks = {}
    for mask in {view.mask for view in views}:
        field = MASKS[mask]
        squares = np.ones(n) if field is None or n == 1 else field.weights(basis.grid) ** 2
        # A layer whose sampled positions are all alike counts nothing.
        length = float(squares @ basis.lengths)
        of_masks[mask] = squares / length if length > 0 else np.zeros(n)
    return np.stack([of_masks[view.mask] * view.layers[place] for view in views])


def views_at_a_time(n_images: int) -> int:
    """In how many views the products of so many images need 512 MiB; 1 or more."""
    return max(1, _MOST_BYTES // (4 * n_images**2))
