"""Gaussian masks over the image, and the inner products of images that are seen through them.

With the coordinates Z_p (n x k) of a layer at position p and a mask m over positions, ridge regression
on the masked coordinates m_p Z_p needs K = sum_p m_p^2 Z_p Z_p^T. The products Z_p Z_p^T of all
positions cost what the one product of a dense ridge costs, and each mask is a weighted sum of them.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from nrp_onnx.backbone.layers import Grid
from nrp_onnx.predictor.channels import ChannelBasis


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


def masked_products(
    bases: Sequence[ChannelBasis], images: np.ndarray, masks: Iterable[int]
) -> np.ndarray:
    """Inner products of some images over all layers, through some masks: float32 (len(masks), n, n).

    Each layer counts alike: through each mask, the mean square length of the training images is 1.

    Args:
        bases: of the layers in which the images differ.
        images: their places, n of them.
        masks: places in `MASKS`.
    """
    n, masks = len(images), list(masks)
    products = np.zeros((len(masks), n, n), np.float32)
    for basis in bases:
        factors = squared_weights(basis, masks).astype(np.float32)
        seen = np.ascontiguousarray(basis.coordinates[images].swapaxes(0, 1))
        for start in range(0, n, _ROWS):
            rows = slice(start, start + _ROWS)
            at_positions = seen[:, rows] @ seen.swapaxes(1, 2)
            products[:, rows] += np.tensordot(factors, at_positions, axes=1)
    return products


def squared_weights(basis: ChannelBasis, masks: Iterable[int]) -> np.ndarray:
    """What the squared coordinates of a layer are multiplied by: float64 (len(masks), P)."""
    n = basis.grid.n_positions
    every = [MASKS[place] for place in masks]
    if n == 1:
        squares = np.ones((len(every), 1))
    else:
        rows = [np.ones(n) if mask is None else mask.weights(basis.grid) ** 2 for mask in every]
        squares = np.stack(rows)
    lengths = squares @ basis.lengths
    found: np.ndarray = squares / lengths[:, None]
    return found


def masks_at_a_time(n_images: int) -> int:
    """Through how many masks the products of so many images need 512 MiB; 1 or more."""
    return max(1, _MOST_BYTES // (4 * n_images**2))
