"""Masked kernel ridge as arrays that predict any image: the path beside the network that is exported.

The weights of a kernel ridge are of training images, so their coordinates go with it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from nrp_onnx.predictor.baselines import arc_cosine_of
from nrp_onnx.predictor.channels import ChannelBasis
from nrp_onnx.predictor.masked_ridge import MaskedRidge
from nrp_onnx.predictor.masks import View, squared_weights

#: Images whose products are computed at a time.
_ROWS = 64


@dataclass(frozen=True, eq=False)
class KernelPath:
    """Rates of a site = sum_i weights_i k(x, x_i) + constant, over n training images x_i.

    k is the arc-cosine kernel of the inner products K in the site's view. These are taken around the
    mean of the images that the site was fitted to: K(x, x_i) - sum_j share_j K(x, x_j) - offsets_i + mean.
    Sites with the same view and the same images share a kernel; there are Q.

    Attributes:
        kernel_of_site: int64 (n_sites,), its place among the kernels.
        weights: float64 (n_sites, n).
        constant: float64 (n_sites,).
        coordinates: of the training images in each layer, float16 (n, P, k): they are nearly all of an
            exported predictor. All other attributes are of the rounded ones.
        squares: for each layer, what the squared coordinates are multiplied by: float64 (Q, P).
        share: float64 (Q, n), 1 / (number of images) for those that were fitted to, else 0.
        offsets: sum_j share_j K(x_j, x_i), float64 (Q, n).
        mean: sum_i share_i sum_j share_j K(x_j, x_i), float64 (Q,).
        lengths: of the training images around the mean, float64 (Q, n).
    """

    kernel_of_site: np.ndarray
    weights: np.ndarray
    constant: np.ndarray
    coordinates: list[np.ndarray]
    squares: list[np.ndarray]
    share: np.ndarray
    offsets: np.ndarray
    mean: np.ndarray
    lengths: np.ndarray

    def rates(self, coordinates: Sequence[np.ndarray]) -> np.ndarray:
        """Rates of images, float64 (n_images, n_sites).

        Args:
            coordinates: of the images in each layer, float32 (n_images, P, k).
        """
        found = np.empty((len(coordinates[0]), len(self.weights)))
        for rows, kernels in self._kernels(coordinates):
            for place, kernel in enumerate(kernels):
                sites = np.flatnonzero(self.kernel_of_site == place)
                found[rows, sites] = kernel @ self.weights[sites].T
        rates: np.ndarray = found + self.constant
        return rates

    def _kernels(self, coordinates: Sequence[np.ndarray]) -> Iterator[tuple[slice, np.ndarray]]:
        """A few images, and their kernels with the training images, float64 (Q, r, n)."""
        for rows, products, squared in _products(coordinates, self.coordinates, self.squares):
            toward = np.einsum("qrn,qn->qr", products, self.share)
            around = products - toward[:, :, None] - (self.offsets - self.mean[:, None])[:, None]
            lengths = np.sqrt(np.maximum(squared - 2 * toward + self.mean[:, None], 0))
            yield rows, arc_cosine_of(around, lengths[:, :, None] * self.lengths[:, None])


def _products(
    images: Sequence[np.ndarray], training: Sequence[np.ndarray], squares: Sequence[np.ndarray]
) -> Iterator[tuple[slice, np.ndarray, np.ndarray]]:
    """A few images, their inner products with the training images, (Q, r, n), and with themselves, (Q, r)."""
    seen = [np.ascontiguousarray(x.swapaxes(0, 1), np.float32) for x in images]
    known = [np.ascontiguousarray(x.transpose(1, 2, 0), np.float32) for x in training]
    for start in range(0, len(images[0]), _ROWS):
        rows = slice(start, start + _ROWS)
        n_rows = seen[0][:, rows].shape[1]
        products = np.zeros((len(squares[0]), n_rows, known[0].shape[2]))
        own = np.zeros(products.shape[:2])
        for x, other, factors in zip(seen, known, squares, strict=True):
            products += np.tensordot(factors.astype(np.float32), x[:, rows] @ other, axes=1)
            own += factors @ np.square(x[:, rows], dtype=np.float64).sum(axis=2)
        yield rows, products, own


def kernel_path(
    bases: Sequence[ChannelBasis], fitted: MaskedRidge, train: np.ndarray
) -> KernelPath:
    """The path of a fitted masked kernel ridge.

    Args:
        bases: of the layers that it was fitted to.
        train: places of the training images.
    """
    keys = [
        (view, known.tobytes()) for view, known in zip(fitted.views, fitted.known.T, strict=True)
    ]
    distinct: dict[tuple[View, bytes], int] = {}
    kernel_of_site = np.array([distinct.setdefault(key, len(distinct)) for key in keys])
    views = [view for view, _ in distinct]
    first = [int(np.flatnonzero(kernel_of_site == place)[0]) for place in range(len(distinct))]
    share = fitted.known[:, first].T / fitted.known[:, first].sum(axis=0)[:, None]
    coordinates = [basis.coordinates[train].astype(np.float16) for basis in bases]
    squares = [squared_weights(basis, place, views) for place, basis in enumerate(bases)]
    toward, own = np.empty(share.shape), np.empty(share.shape)
    for rows, products, squared in _products(coordinates, coordinates, squares):
        toward[:, rows] = np.einsum("qrn,qn->qr", products, share)
        own[:, rows] = squared
    mean = np.einsum("qn,qn->q", toward, share)
    lengths = np.sqrt(np.maximum(own - 2 * toward + mean[:, None], 0))
    path = KernelPath(
        kernel_of_site=kernel_of_site,
        weights=fitted.weights,
        constant=np.zeros(len(kernel_of_site)),
        coordinates=coordinates,
        squares=squares,
        share=share,
        offsets=toward,
        mean=mean,
        lengths=lengths,
    )
    # The ridge is on the kernel around its mean; the weights of a site add up to 0, so that only the
    # mean over images of the kernel with each training image is left of that.
    means = np.zeros(share.shape)
    for rows, kernels in path._kernels(coordinates):
        means += np.einsum("qrn,qr->qn", kernels, share[:, rows])
    shift = np.einsum("sn,sn->s", fitted.weights, means[kernel_of_site])
    return replace(path, constant=fitted.mean - shift)
