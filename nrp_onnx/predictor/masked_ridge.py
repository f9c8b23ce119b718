"""Masked ridge and masked kernel ridge: each site sees the image through a Gaussian of its own.

The mask of a site is chosen with its alpha: that of the least leave-one-out error within the training
images. Masks of fixed form that are fitted a site are the receptive fields of Dumoulin & Wandell
(2008); St-Yves & Naselaris (2018), "The feature-weighted receptive field", choose them from a grid of
candidates, as it is done here.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from nrp_onnx.predictor.baselines import arc_cosine_of
from nrp_onnx.predictor.channels import ChannelBasis
from nrp_onnx.predictor.image_products import centred, spectrum_of_products
from nrp_onnx.predictor.masks import (
    MASKS,
    View,
    layer_weightings,
    masked_products,
    products_with_landmarks,
    views_at_a_time,
)
from nrp_onnx.predictor.nystroem import KernelFeatures
from nrp_onnx.predictor.ridge import Responses, Ridge, choose_alphas, fit_ridge, response_patterns
from nrp_onnx.threads import map_on_cores

#: Masks, and then what layers count, are chosen on so many training images at most: an
#: eigendecomposition of n images takes 10 n^3 operations, for each of them.
_CHOOSING_MASKS, _CHOOSING_LAYERS = 640, 400
#: Of the images that the masks are chosen on, where they are not all.
_SEED = 0
#: Bytes that the fits through one mask need, for the square of the number of images.
_BYTES = 60
#: Bytes of the products with landmarks, and of two such arrays that fits make, that are held at a time; and images of a block of them.
_LANDMARK_BYTES, _IMAGES_A_BLOCK = 2**29, 2048

Kernel = Callable[[np.ndarray], np.ndarray]
Products = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True, eq=False)
class MaskedRidge:
    """Ridge regression through the mask of each site.

    Attributes:
        views: one a site.
        rates: its predictions of the new images, float64 (n_new, n_sites).
        held_out: leave-one-out predictions of the training images, float64 (n_train, n_sites); NaN
            where there is no response.
        weights: of the products with the training images, float64 (n_sites, n_train).
        mean: the rates at the mean of the training images that a site was fitted to, (n_sites,).
        known: bool (n_train, n_sites), the images that it was fitted to.
    """

    views: Sequence[View]
    rates: np.ndarray
    held_out: np.ndarray
    weights: np.ndarray
    mean: np.ndarray
    known: np.ndarray

    @classmethod
    def empty(cls, views: Sequence[View], y: np.ndarray, n_new: int) -> "MaskedRidge":
        """One that the fits through each mask fill."""
        return cls(
            views=views,
            rates=np.empty((n_new, y.shape[1])),
            held_out=np.full(y.shape, np.nan),
            weights=np.zeros(y.T.shape),
            mean=np.empty(y.shape[1]),
            known=~np.isnan(y),
        )

    def first_sites(self, n_sites: int) -> "MaskedRidge":
        """The fits of the first sites alone."""
        return MaskedRidge(
            self.views[:n_sites],
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


def choose_views(
    bases: Sequence[ChannelBasis],
    y: np.ndarray,
    train: np.ndarray,
    n_variants: int = 1,
    most: int = len(MASKS),
) -> list[View]:
    """The view of each site: that of the least leave-one-out error of a ridge.

    First each site chooses its mask, with all layers alike; then the sites with one mask choose together
    how much each layer counts. So there are no more views than masks. Responses that are missing are
    taken for the site's mean.

    Args:
        bases: of the layers in which the images differ.
        y: float64 (n_train, n_variants * n_sites), NaN = missing; variants of the same responses
            (recorded, their square roots) choose together.
        train: places of the training images; of more than 640 (400 for the layers) a sample chooses.
        most: no more masks than these; those are left out whose sites lose least by another one.
    """
    weightings = layer_weightings(len(bases))
    choose = _Choice(bases, y, train, n_variants)
    first = [View(mask, weightings[0]) for mask in range(len(MASKS))]
    masks = _least_errors(choose.errors(first, _CHOOSING_MASKS), most)
    used = np.unique(masks)
    every = [View(int(mask), layers) for mask in used for layers in weightings]
    errors = choose.errors(every, _CHOOSING_LAYERS).reshape(len(used), len(weightings), -1)
    layers = {
        int(mask): weightings[int(of_mask[:, masks == mask].mean(axis=1).argmin())]
        for mask, of_mask in zip(used, errors, strict=True)
    }
    return [View(int(mask), layers[int(mask)]) for mask in masks]


def _least_errors(errors: np.ndarray, most: int) -> np.ndarray:
    """Of each site the mask of least error, where there may be so many masks in all: (n_sites,).

    Args:
        errors: (n_masks, n_sites).
    """
    kept = np.unique(errors.argmin(axis=0))
    while len(kept) > most:
        best, next_best = np.partition(errors[kept], 1, axis=0)[:2]
        chosen = errors[kept].argmin(axis=0)
        lost = np.bincount(chosen, next_best - best, len(kept))
        kept = np.delete(kept, lost.argmin())
    found: np.ndarray = kept[errors[kept].argmin(axis=0)]
    return found


@dataclass(frozen=True, eq=False)
class _Choice:
    """Leave-one-out errors on a sample of the training images; see `choose_views`."""

    bases: Sequence[ChannelBasis]
    y: np.ndarray
    train: np.ndarray
    n_variants: int

    def errors(self, views: Sequence[View], n_images: int) -> np.ndarray:
        """Mean square errors of each site in each view, (len(views), n_sites), as parts of the variance."""
        chosen = np.arange(len(self.train))
        if len(chosen) > n_images:
            chosen = np.sort(np.random.default_rng(_SEED).permutation(len(chosen))[:n_images])
        moved = self.y[chosen] - np.nan_to_num(np.nanmean(self.y[chosen], axis=0))
        filled, here = np.nan_to_num(moved), np.arange(len(chosen))

        def of_view(products: np.ndarray) -> np.ndarray:
            spectrum = spectrum_of_products(centred(products.astype(np.float64), here))
            return choose_alphas(spectrum, Responses.of(filled, spectrum))[1]

        found, n_bytes = [], _BYTES * len(chosen) ** 2
        step = views_at_a_time(len(chosen))
        for start in range(0, len(views), step):
            some = views[start : start + step]
            products = masked_products(self.bases, self.train[chosen], some)
            found += map_on_cores(of_view, products, n_bytes)
        errors = np.stack(found) / np.maximum(filled.var(axis=0), np.finfo(float).tiny)
        of_sites: np.ndarray = errors.reshape(len(views), self.n_variants, -1).mean(axis=1)
        return of_sites


def fit_masked(
    bases: Sequence[ChannelBasis],
    views: Sequence[View],
    y: np.ndarray,
    train: np.ndarray,
    new: np.ndarray,
    kernel: Kernel,
) -> tuple[MaskedRidge, MaskedRidge]:
    """Fit ridge and kernel ridge in the view of each site; alpha per site by leave-one-out.

    Args:
        bases: of the layers in which the images differ.
        views: one a site.
        y: float64 (n_train, n_sites), NaN = missing.
        train, new: places of images.
        kernel: from inner products to those of the kernel ridge.
    """
    linear, curved = (MaskedRidge.empty(views, y, len(new)) for _ in range(2))
    both, n = np.concatenate([train, new]), len(train)
    patterns = list(response_patterns(linear.known))
    used = list(dict.fromkeys(views))
    view_of_site = np.array([used.index(view) for view in views])
    for some in np.array_split(np.arange(len(used)), -(-len(used) // views_at_a_time(len(both)))):
        products = masked_products(bases, both, [used[place] for place in some])

        def fit(place: int, held: np.ndarray = products, these: np.ndarray = some) -> None:
            for rows, of_pattern in patterns:
                sites = of_pattern[view_of_site[of_pattern] == these[place]]
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


def fit_masked_by_landmarks(
    bases: Sequence[ChannelBasis],
    views: Sequence[View],
    y: np.ndarray,
    train: np.ndarray,
    new: np.ndarray,
    landmarks: np.ndarray,
) -> tuple[MaskedRidge, MaskedRidge]:
    """`fit_masked` with the arc-cosine kernel where images are many: by kernels with the landmarks alone.

    Args:
        landmarks: places of m training images; the weights of the fits are of these, (n_sites, m).
    """
    n_sites, m = y.shape[1], len(landmarks)
    known = np.ones((m, n_sites), bool)
    linear, curved = (
        MaskedRidge(
            views,
            np.empty((len(new), n_sites)),
            np.full(y.shape, np.nan, np.float32),
            np.zeros((n_sites, m)),
            np.empty(n_sites),
            known,
        )
        for _ in range(2)
    )
    patterns = list(response_patterns(~np.isnan(y)))
    used = list(dict.fromkeys(views))
    view_of_site = np.array([used.index(view) for view in views])
    step = max(1, _LANDMARK_BYTES // (4 * len(bases[0].coordinates) * m) - 2)
    for start in range(0, len(used), step):
        some = used[start : start + step]
        products, own = products_with_landmarks(bases, landmarks, some)

        def fit_view(place: int, start: int = start, held: Products = (products, own)) -> None:
            kernels, own_of_view = held[0][place], held[1][place]
            toward = kernels.mean(axis=1, dtype=np.float64)
            of_landmarks = toward[landmarks]
            middle = of_landmarks.mean()
            lengths = np.sqrt(np.maximum(own_of_view - 2 * toward + middle, 0))
            in_view = [
                (rows, sites[view_of_site[sites] == start + place]) for rows, sites in patterns
            ]
            # The products become the linear kernels, and these the arc-cosine ones.
            _in_blocks(kernels, lambda x, rows: x - toward[rows, None] - (of_landmarks - middle))
            for fit in (linear, curved):
                if fit is curved:
                    _in_blocks(
                        kernels,
                        lambda x, rows: arc_cosine_of(
                            x, np.outer(lengths[rows], lengths[landmarks])
                        ),
                    )
                at_landmarks = kernels[landmarks].mean(axis=0, dtype=np.float64)
                whitening = None
                for rows, sites in in_view:
                    if not len(sites):
                        continue
                    features = KernelFeatures.of(kernels, landmarks, train[rows], whitening)
                    whitening = features.whitening
                    recorded = y[np.ix_(rows, sites)]
                    ridge = features.ridge(Responses.of(recorded, features.spectrum))
                    fit.rates[:, sites] = features.rates(kernels[new], ridge)
                    fit.held_out[np.ix_(rows, sites)] = ridge.held_out
                    fit.weights[sites] = ridge.weights.T
                    # The rates at the mean of the kernels of the landmarks.
                    around = at_landmarks - features.centre
                    fit.mean[sites] = ridge.mean + around @ ridge.weights

        map_on_cores(fit_view, range(len(some)))
        del products, own, fit_view  # before the next are made
    return linear, curved


def _in_blocks(kernels: np.ndarray, turn: Callable[[np.ndarray, slice], np.ndarray]) -> None:
    """Replace the rows of float32 kernels, a block at a time: what is computed may be float64."""
    for start in range(0, len(kernels), _IMAGES_A_BLOCK):
        rows = slice(start, start + _IMAGES_A_BLOCK)
        kernels[rows] = turn(kernels[rows], rows)


def _fit(around: np.ndarray, y: np.ndarray) -> tuple[Ridge, np.ndarray]:
    """Ridge on the first images of some inner products, and its rates of the others."""
    n = len(y)
    spectrum = spectrum_of_products(around[:n, :n])
    ridge = fit_ridge(spectrum, Responses.of(y, spectrum))
    return ridge, ridge.predict(around[n:, :n])
