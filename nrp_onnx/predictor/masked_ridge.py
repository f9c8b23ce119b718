"""Masked ridge and masked kernel ridge: each site sees the image through a Gaussian of its own.

The mask of a site is chosen with its alpha: that of the least leave-one-out error within the training
images. Masks of fixed form that are fitted a site are the receptive fields of Dumoulin & Wandell
(2008); St-Yves & Naselaris (2018), "The feature-weighted receptive field", choose them from a grid of
candidates, as it is done here.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from nrp_onnx.predictor.channels import ChannelBasis
from nrp_onnx.predictor.image_products import centred, spectrum_of_products
from nrp_onnx.predictor.masks import MASKS, masked_products, masks_at_a_time, squared_weights
from nrp_onnx.predictor.ridge import Responses, Ridge, choose_alphas, fit_ridge, response_patterns
from nrp_onnx.threads import map_on_cores

#: Masks are chosen on so many training images at most: an eigendecomposition of n images takes 10 n^3
#: operations, for each mask.
_CHOOSING = 640
#: Of the images that the masks are chosen on, where they are not all.
_SEED = 0
#: Bytes that the fits through one mask need, for the square of the number of images.
_BYTES = 60

Kernel = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True, eq=False)
class MaskedRidge:
    """Ridge regression through the mask of each site.

    Attributes:
        masks: places in `MASKS`, int64 (n_sites,).
        rates: its predictions of the new images, float64 (n_new, n_sites).
        held_out: leave-one-out predictions of the training images, float64 (n_train, n_sites); NaN
            where there is no response.
        weights: of the products with the training images, float64 (n_sites, n_train).
        mean: the rates at the mean of the training images that a site was fitted to, (n_sites,).
        known: bool (n_train, n_sites), the images that it was fitted to.
    """

    masks: np.ndarray
    rates: np.ndarray
    held_out: np.ndarray
    weights: np.ndarray
    mean: np.ndarray
    known: np.ndarray

    @classmethod
    def empty(cls, masks: np.ndarray, y: np.ndarray, n_new: int) -> "MaskedRidge":
        """One that the fits through each mask fill."""
        return cls(
            masks=masks,
            rates=np.empty((n_new, y.shape[1])),
            held_out=np.full(y.shape, np.nan),
            weights=np.zeros(y.T.shape),
            mean=np.empty(y.shape[1]),
            known=~np.isnan(y),
        )

    def first_sites(self, n_sites: int) -> "MaskedRidge":
        """The fits of the first sites alone."""
        return MaskedRidge(
            self.masks[:n_sites],
            self.rates[:, :n_sites],
            self.held_out[:, :n_sites],
            self.weights[:n_sites],
            self.mean[:n_sites],
            self.known[:, :n_sites],
        )

    def set_sites(
        self, rows: np.ndarray, sites: np.ndarray, ridge: Ridge, rates: np.ndarray
    ) -> None:
        """Take the fit of some sites to some of the training images."""
        self.rates[:, sites] = rates
        self.held_out[np.ix_(rows, sites)] = ridge.held_out
        self.weights[np.ix_(sites, rows)] = ridge.weights.T
        self.mean[sites] = ridge.mean


def choose_masks(
    bases: Sequence[ChannelBasis], y: np.ndarray, train: np.ndarray, n_variants: int = 1
) -> np.ndarray:
    """The mask of each site, int64 (n_sites,): that of the least leave-one-out error of a ridge.

    Responses that are missing are taken for the site's mean.

    Args:
        bases: of the layers in which the images differ.
        y: float64 (n_train, n_variants * n_sites), NaN = missing; variants of the same responses
            (recorded, their square roots) choose one mask together.
        train: places of the training images; of more than 640 a sample chooses.
    """
    chosen = np.arange(len(train))
    if len(train) > _CHOOSING:
        chosen = np.sort(np.random.default_rng(_SEED).permutation(len(train))[:_CHOOSING])
    filled = np.nan_to_num(y[chosen] - np.nanmean(y[chosen], axis=0))
    products = masked_products(bases, train[chosen], range(len(MASKS)))
    here = np.arange(len(chosen))

    def errors(place: int) -> np.ndarray:
        spectrum = spectrum_of_products(centred(products[place].astype(np.float64), here))
        return choose_alphas(spectrum, Responses.of(filled, spectrum))[1]

    of_masks = np.stack(map_on_cores(errors, range(len(MASKS)), _BYTES * len(chosen) ** 2))
    of_masks /= np.maximum(filled.var(axis=0), np.finfo(float).tiny)
    found: np.ndarray = of_masks.reshape(len(MASKS), n_variants, -1).mean(axis=1).argmin(axis=0)
    return found


def fit_masked(
    bases: Sequence[ChannelBasis],
    masks: np.ndarray,
    y: np.ndarray,
    train: np.ndarray,
    new: np.ndarray,
    kernel: Kernel,
) -> tuple[MaskedRidge, MaskedRidge]:
    """Fit ridge and kernel ridge through the mask of each site; alpha per site by leave-one-out.

    Args:
        bases: of the layers in which the images differ.
        masks: places in `MASKS`, one a site.
        y: float64 (n_train, n_sites), NaN = missing.
        train, new: places of images.
        kernel: from inner products to those of the kernel ridge.
    """
    linear, curved = (MaskedRidge.empty(masks, y, len(new)) for _ in range(2))
    both, n = np.concatenate([train, new]), len(train)
    patterns = list(response_patterns(linear.known))
    used = np.unique(masks)
    for some in np.array_split(used, -(-len(used) // masks_at_a_time(len(both)))):
        products = masked_products(bases, both, some)

        def fit(place: int, held: np.ndarray = products, these: np.ndarray = some) -> None:
            for rows, of_pattern in patterns:
                sites = of_pattern[masks[of_pattern] == these[place]]
                if not len(sites):
                    continue
                here = np.concatenate([rows, np.arange(n, len(both))])
                there, recorded = np.arange(len(rows)), y[np.ix_(rows, sites)]
                around = centred(held[place][np.ix_(here, here)].astype(np.float64), there)
                linear.set_sites(rows, sites, *_fit(around, recorded))
                around = centred(kernel(around), there)
                curved.set_sites(rows, sites, *_fit(around, recorded))

        map_on_cores(fit, range(len(some)), _BYTES * len(both) ** 2)
    return linear, curved


def _fit(around: np.ndarray, y: np.ndarray) -> tuple[Ridge, np.ndarray]:
    """Ridge on the first images of some inner products, and its rates of the others."""
    n = len(y)
    spectrum = spectrum_of_products(around[:n, :n])
    ridge = fit_ridge(spectrum, Responses.of(y, spectrum))
    return ridge, ridge.predict(around[n:, :n])


@dataclass(frozen=True, eq=False)
class MaskedPath:
    """Masked ridge as weights of coordinates, so that it is exported as it was scored.

    Attributes:
        rates: its predictions, float64 (n_images, n_sites); NaN for images it was not asked for.
        at_mean: the rates at the mean of the training images, float64 (n_sites,).
        weights: for each layer, of its coordinates: float64 (n_sites, P, k).
    """

    rates: np.ndarray
    at_mean: np.ndarray
    weights: list[np.ndarray]


def masked_path(
    bases: Sequence[ChannelBasis], fitted: MaskedRidge, train: np.ndarray, new: np.ndarray
) -> MaskedPath:
    """Predict new images from weights of coordinates.

    The products are float32: rates from them would miss those of the weights by 2e-4 standard
    deviations.
    """
    n_images, n_sites = len(bases[0].coordinates), len(fitted.mean)
    rates = np.full((n_images, n_sites), np.nan)
    rates[new] = 0
    at_mean, weights = fitted.mean.copy(), []
    share = fitted.known.T / fitted.known.sum(axis=0)[:, None]
    for basis in bases:
        squares = squared_weights(basis, fitted.masks)
        of_layer = np.empty((n_sites, *basis.coordinates.shape[1:]))
        for position in range(of_layer.shape[1]):
            seen = basis.coordinates[:, position].astype(np.float64)
            of_train = seen[train]
            found = (fitted.weights @ of_train) * squares[:, position, None]
            rates[new] += seen[new] @ found.T
            # The fit is around the mean of the images that the site was fitted to.
            at_mean -= np.einsum("sk,sk->s", found, share @ of_train)
            of_layer[:, position] = found
        weights.append(of_layer)
    rates[new] += at_mean
    return MaskedPath(rates, at_mean, weights)
