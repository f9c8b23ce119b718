"""Bootstrap intervals of mean errors: over images, seeds, and sites in sessions in animals."""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from functools import lru_cache
from zlib import crc32

import numpy as np

Interval = tuple[float, float]
#: One group name a site for each level above the sites, the outermost first.
Levels = tuple[tuple[str, ...], ...]

N_RESAMPLES = 2000
#: Labels of sites that say which were recorded together, the outermost level first.
LEVELS = ("animal", "session")
#: With fewer groups or sites than these, percentile intervals are clearly too narrow.
FEW_SITES, FEW_GROUPS = 20, 6
_SITES_A_BLOCK = 2048


def bootstrap_means(
    values: np.ndarray, seed: int, n_resamples: int = N_RESAMPLES, levels: Levels = ()
) -> np.ndarray:
    """Means of ``values`` over resampled images and sites, float64 array (n_resamples,).

    Both images and sites are drawn with replacement, independently (a two-way, or pigeonhole,
    bootstrap: Owen 2007), since the score is to hold for other images and other sites. The same seed
    draws the same images whatever the sites are, so that means of several regions belong together.

    Sites that were recorded together are not independent. With ``levels``, first the outermost groups
    are drawn with replacement, then within each of them the groups of the next level, and at last
    sites (a cluster bootstrap at every level: Davison & Hinkley 1997, section 3.8). Regions whose sites
    are of the same groups draw the same groups.

    Args:
        values: float array (n_images, n_sites), NaN = not recorded; or (n_seeds, n_images, n_sites),
            the same of several seeds. Each resample then takes one seed, drawn at random: the interval
            is that of the error of a run with one seed.
        levels: names of the groups of each site, the outermost level first; see `nested_levels`.

    Returns:
        NaN for a resample that holds no recorded value.
    """
    if values.ndim == 3:
        of_seeds = np.stack([bootstrap_means(one, seed, n_resamples, levels) for one in values])
        drawn = np.random.default_rng([seed, len(values)]).integers(len(values), size=n_resamples)
        means: np.ndarray = of_seeds[drawn, np.arange(n_resamples)]
        return means
    n_images, n_sites = values.shape
    images, sites = _drawn(seed, n_images, n_sites, n_resamples, levels)
    return _means(values, images, sites)


def bootstrap_drops(
    values: np.ndarray,
    others: np.ndarray,
    seed: int,
    n_resamples: int = N_RESAMPLES,
    levels: Levels = (),
) -> np.ndarray:
    """Means of other images less those of the first: float64 array (n_resamples,).

    The images of both are drawn apart, as they are different ones; the sites are the same.

    Args:
        values, others: float arrays (n_images, n_sites), of the same sites; NaN = not recorded.
        levels: as in `bootstrap_means`.
    """
    rng = np.random.default_rng([seed, len(others)])
    first, second = (_draws(rng, len(some), n_resamples) for some in (values, others))
    if levels:
        sites = _drawn_in_groups(seed, levels, n_resamples)
    else:
        sites = _draws(rng, values.shape[1], n_resamples)
    drops: np.ndarray = _means(others, second, sites) - _means(values, first, sites)
    return drops


def _means(values: np.ndarray, images: np.ndarray, sites: np.ndarray) -> np.ndarray:
    """Means of resamples that hold images and sites so often; NaN where nothing is recorded."""
    sums, counts = np.zeros(len(images)), np.zeros(len(images))
    # A block of sites at a time: a resample of all would be as large as thousands of images.
    for start in range(0, values.shape[1], _SITES_A_BLOCK):
        some = slice(start, start + _SITES_A_BLOCK)
        block, of_sites = values[:, some], sites[:, some]
        there = ~np.isnan(block)
        sums += ((images @ np.where(there, block, 0)) * of_sites).sum(axis=1)
        if there.all():  # every value of a resample counts
            counts += len(values) * of_sites.sum(axis=1)
        else:
            counts += ((images @ there.astype(np.float64)) * of_sites).sum(axis=1)
    means = np.full(len(images), np.nan)
    np.divide(sums, counts, out=means, where=counts > 0)
    return means


def bootstrap_medians(
    values: np.ndarray, seed: int, n_resamples: int = N_RESAMPLES, levels: Levels = ()
) -> np.ndarray:
    """Medians of ``values`` over resampled sites, float64 array (n_resamples,).

    Args:
        values: float array (n_sites,); sites that are not finite are left out.
        levels: as in `bootstrap_means`.

    Returns:
        NaN for a resample that holds no finite value.
    """
    finite = np.isfinite(values)
    if not finite.any():
        return np.full(n_resamples, np.nan)
    if levels:
        sites = _drawn_in_groups(seed, levels, n_resamples)
    else:
        sites = _draws(np.random.default_rng(seed), len(values), n_resamples)
    order = np.argsort(values[finite], kind="stable")
    rising = values[finite][order]
    held = sites[:, finite][:, order].cumsum(axis=1)
    total = held[:, -1]
    lower, upper = (
        rising[(held <= rank[:, None]).sum(axis=1).clip(max=len(rising) - 1)]
        for rank in ((total - 1) // 2, total // 2)
    )
    return np.where(total > 0, (lower + upper) / 2, np.nan)


def nested_levels(
    labels: Mapping[str, Sequence[str]], sites: Sequence[int] | np.ndarray
) -> dict[str, tuple[str, ...]]:
    """The levels above the sites that hold something to draw: two groups or more.

    Args:
        labels: of all sites, by name; those of `LEVELS` are taken. One that a site lacks is not known.
        sites: places of the sites that are drawn.

    Returns:
        By the name of the level, the outermost first, the group of each of ``sites``. A session of one
        animal is another than that of the same name of another animal.
    """
    found: dict[str, tuple[str, ...]] = {}
    outer: tuple[str, ...] = ("",) * len(sites)
    for level in LEVELS:
        names = [labels[level][place] for place in sites] if level in labels else []
        if not names or not all(names):
            continue
        inner = tuple(f"{one}\n{name}" for one, name in zip(outer, names, strict=True))
        if len(set(inner)) > max(1, len(set(outer))):
            found[level] = outer = inner
    return found


def percentile_interval(means: np.ndarray, level: float = 0.95) -> Interval:
    """The percentile interval of what a bootstrap gave; resamples without a value are left out."""
    tail = (1 - level) / 2
    low, high = np.quantile(means[~np.isnan(means)], [tail, 1 - tail])
    return float(low), float(high)


@lru_cache(maxsize=4)
def _drawn(
    seed: int, n_images: int, n_sites: int, n_resamples: int, levels: Levels
) -> tuple[np.ndarray, np.ndarray]:
    """How often each resample holds each image and each site; kept, as every predictor takes the same.

    Returns:
        float64 (n_resamples, n_images) and (n_resamples, n_sites).
    """
    images, rng = _drawn_images(seed, n_images, n_resamples)
    if levels:
        return images, _drawn_in_groups(seed, levels, n_resamples)
    sites = _draws(deepcopy(rng), n_sites, n_resamples)
    return images, sites


def _drawn_in_groups(seed: int, levels: Levels, n_resamples: int) -> np.ndarray:
    """How often each resample holds each site where groups are drawn first, float64."""
    n_sites = len(levels[0])
    held = {"": np.ones(n_resamples, np.int64)}
    outer: tuple[str, ...] = ("",) * n_sites
    for inner in (*levels, tuple(map(str, range(n_sites)))):
        inside: dict[str, dict[str, None]] = {}
        for parent, name in zip(outer, inner, strict=True):
            inside.setdefault(parent, {})[name] = None
        found: dict[str, np.ndarray] = {}
        for parent, children in inside.items():
            names = sorted(children)
            # Of the names, so that two regions of the same groups draw the same.
            rng = np.random.default_rng([seed, crc32("\t".join([parent, *names]).encode())])
            # A group that is held k times draws k times; the sum of multinomials is one, too.
            drawn = rng.multinomial(len(names) * held[parent], np.full(len(names), 1 / len(names)))
            found |= dict(zip(names, drawn.T, strict=True))
        held, outer = found, inner
    return np.stack([held[str(place)] for place in range(n_sites)], axis=1).astype(np.float64)


@lru_cache(maxsize=1)
def _drawn_images(
    seed: int, n_images: int, n_resamples: int
) -> tuple[np.ndarray, np.random.Generator]:
    """The images, which are those of every region; and what draws the sites."""
    rng = np.random.default_rng(seed)
    return _draws(rng, n_images, n_resamples), rng


def _draws(rng: np.random.Generator, n: int, n_resamples: int) -> np.ndarray:
    return rng.multinomial(n, np.full(n, 1 / n), n_resamples).astype(np.float64)
