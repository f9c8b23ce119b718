"""Masked ridge and masked kernel ridge: each site sees the image through a Gaussian of its own.

The mask of a site is chosen with its alpha: that of the least leave-one-out error within the training
images. Masks of fixed form that are fitted a site are the receptive fields of Dumoulin & Wandell
(2008); St-Yves & Naselaris (2018), "The feature-weighted receptive field", choose them from a grid of
candidates as it is done here, for one weight a feature map.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from nrp_onnx.activations.layer_file import LayerActivations
from nrp_onnx.predictor.image_products import FEATURES_A_BLOCK, centred, spectrum_of_products
from nrp_onnx.predictor.masks import MASKS, MaskedProducts
from nrp_onnx.predictor.ridge import Responses, Ridge, choose_alphas, fit_ridge, response_patterns
from nrp_onnx.threads import map_on_cores

#: Masks are chosen on so many training images at most: an eigendecomposition of n images takes 10 n^3
#: operations, for each mask.
_CHOOSING = 640
#: Of the images that the masks are chosen on, where they are not all.
_SEED = 0

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


def choose_masks(
    masked: MaskedProducts, y: np.ndarray, train: np.ndarray, n_variants: int = 1
) -> np.ndarray:
    """The mask of each site, int64 (n_sites,): that of the least leave-one-out error of a ridge.

    Responses that are missing are taken for the site's mean.

    Args:
        y: float64 (n_train, n_variants * n_sites), NaN = missing; variants of the same responses
            (recorded, their square roots) choose one mask together.
        train: places of the training images; more than 640 are sampled.
    """
    chosen = np.arange(len(train))
    if len(train) > _CHOOSING:
        chosen = np.sort(np.random.default_rng(_SEED).permutation(len(train))[:_CHOOSING])
    moved = y[chosen] - np.nanmean(y[chosen], axis=0)
    filled = np.nan_to_num(moved)
    rows = train[chosen]

    def errors(place: int) -> np.ndarray:
        products = masked.products[place][np.ix_(rows, rows)].astype(np.float64)
        spectrum = spectrum_of_products(centred(products, np.arange(len(rows))))
        return choose_alphas(spectrum, Responses.of(filled, spectrum))[1]

    of_masks = np.stack(map_on_cores(errors, range(len(MASKS)), 40 * len(rows) ** 2))
    of_masks = of_masks / np.maximum(filled.var(axis=0), np.finfo(float).tiny)
    found: np.ndarray = of_masks.reshape(len(MASKS), n_variants, -1).mean(axis=1).argmin(axis=0)
    return found


def fit_masked(
    masked: MaskedProducts,
    masks: np.ndarray,
    y: np.ndarray,
    train: np.ndarray,
    new: np.ndarray,
    kernel: Kernel | None = None,
) -> MaskedRidge:
    """Fit ridge through the mask of each site; alpha per site by leave-one-out.

    Args:
        masks: places in `MASKS`, one a site.
        y: float64 (n_train, n_sites), NaN = missing.
        train, new: places of images.
        kernel: from inner products around the mean of the training images to those of a kernel.
    """
    found = MaskedRidge(
        masks=masks,
        rates=np.empty((len(new), y.shape[1])),
        held_out=np.full(y.shape, np.nan),
        weights=np.zeros(y.T.shape),
        mean=np.empty(y.shape[1]),
        known=~np.isnan(y),
    )
    tasks = [
        (rows, sites[masks[sites] == mask], int(mask))
        for rows, sites in response_patterns(found.known)
        for mask in np.unique(masks[sites])
    ]

    def fit(task: tuple[np.ndarray, np.ndarray, int]) -> None:
        rows, sites, mask = task
        ridge, rates = _fit(masked.products[mask], y[np.ix_(rows, sites)], train[rows], new, kernel)
        found.rates[:, sites] = rates
        found.held_out[np.ix_(rows, sites)] = ridge.held_out
        found.weights[np.ix_(sites, rows)] = ridge.weights.T
        found.mean[sites] = ridge.mean

    map_on_cores(fit, tasks, 60 * len(masked.products[0]) ** 2)
    return found


def _fit(
    products: np.ndarray,
    y: np.ndarray,
    fitted: np.ndarray,
    new: np.ndarray,
    kernel: Kernel | None,
) -> tuple[Ridge, np.ndarray]:
    both = np.concatenate([fitted, new])
    here = np.arange(len(fitted))
    around = centred(products[np.ix_(both, both)].astype(np.float64), here)
    if kernel is not None:
        around = centred(kernel(around), here)
    spectrum = spectrum_of_products(around[np.ix_(here, here)])
    ridge = fit_ridge(spectrum, Responses.of(y, spectrum))
    return ridge, ridge.predict(around[len(fitted) :, : len(fitted)])


@dataclass(frozen=True, eq=False)
class MaskedPath:
    """Masked ridge as weights of features, so that it is exported as it was scored.

    Attributes:
        rates: its predictions, float64 (n_images, n_sites); NaN for images it was not asked for.
        at_mean: the rates at the mean of all images, float64 (n_sites,).
        fitted: whose weights it has.
        train: places of the training images.
    """

    rates: np.ndarray
    at_mean: np.ndarray
    fitted: MaskedRidge
    masked: MaskedProducts
    train: np.ndarray

    def fold(self, place: int, activations: LayerActivations) -> tuple[np.ndarray, np.ndarray]:
        """Weights on a layer's activations less the mean of all images, and this mean.

        Args:
            place: of the layer among those of the products.

        Returns:
            float64 (n_sites, D) and (D,).
        """
        mean = self.masked.means[place]
        weights = np.empty((len(self.at_mean), len(mean)))
        for features, block in activations.feature_blocks(FEATURES_A_BLOCK):
            weights[:, features] = _weights(
                self.masked, self.fitted, place, features, block[self.train] - mean[features]
            )
        return weights, mean


def masked_path(
    masked: MaskedProducts, fitted: MaskedRidge, train: np.ndarray, new: np.ndarray
) -> MaskedPath:
    """Predict new images from weights of features; each layer is read once.

    Products in float32 would give rates that the exported weights miss by 2e-4 standard deviations.
    """
    known = fitted.known.T / fitted.known.sum(axis=0)[:, None]
    n_sites = len(fitted.mean)

    def of_layer(place: int) -> tuple[np.ndarray, np.ndarray]:
        rates, shift = np.zeros((len(new), n_sites)), np.zeros(n_sites)
        for features, block in masked.layers[place].activations.feature_blocks(FEATURES_A_BLOCK):
            moved = block - masked.means[place][features]
            of_train = moved[train]
            weights = _weights(masked, fitted, place, features, of_train)
            rates += moved[new] @ weights.T
            # The fit is around the mean of the images that the site was fitted to.
            shift += np.einsum("sf,sf->s", weights, known @ of_train)
        return rates, shift

    n_bytes = 24 * masked.layers[0].activations.shape[0] * FEATURES_A_BLOCK
    found = map_on_cores(of_layer, range(len(masked.layers)), n_bytes)
    at_mean = fitted.mean - sum(shift for _, shift in found)
    rates = np.full((masked.layers[0].activations.shape[0], n_sites), np.nan)
    rates[new] = sum(of for of, _ in found) + at_mean
    return MaskedPath(rates, at_mean, fitted, masked, train)


def _weights(
    masked: MaskedProducts,
    fitted: MaskedRidge,
    place: int,
    features: slice,
    of_train: np.ndarray,
) -> np.ndarray:
    """Weights of some features of a layer, float64 (n_sites, k)."""
    found: np.ndarray = (fitted.weights @ of_train) * masked.factors(place, fitted.masks, features)
    return found
