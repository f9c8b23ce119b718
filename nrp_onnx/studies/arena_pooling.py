"""Pools errors over sessions and animals: a bootstrap of groups within groups, and its corrected p.

Sites of one session share its images and its day, and sessions of one animal share the animal. A bootstrap
that draws sites as if they were all independent gives intervals that are too narrow. Here animals are drawn,
sessions within each, then images and sites within each session (Davison & Hinkley 1997, Bootstrap Methods
and their Application, section 3.8; Saravanan, Berman & Sober 2020 for recordings of neurons).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from nrp_onnx.statistics import Interval, percentile_interval

N_RESAMPLES = 4000
LEVELS = ("animal", "session", "image", "site")


@dataclass(frozen=True)
class Session:
    """One session: what was recorded on the same images at the same time.

    Attributes:
        animal: that it is of.
        name: unlike that of any other session of the animal.
        n_images: rows of its errors.
        regions: of each site, the columns of its errors.
    """

    animal: str
    name: str
    n_images: int
    regions: tuple[str, ...]


@dataclass(frozen=True)
class PooledMean:
    """A mean over animals, of means over sessions, of means over regions, images and sites.

    Attributes:
        value: of what was recorded.
        ci95: its 95 % interval.
        resampled: it in each resample, float64 (n_resamples,); NaN where one holds no value.
    """

    value: float
    ci95: Interval
    resampled: np.ndarray


@dataclass(frozen=True)
class PooledDifference:
    """One error less another, in the same resamples.

    Attributes:
        difference: negative where the first errs less.
        ci95: its 95 % interval, not corrected for the number of pairs.
        p: two-sided, of no difference: twice the share of resamples on the other side of 0.
    """

    difference: float
    ci95: Interval
    p: float


@dataclass(frozen=True)
class _Piece:
    """The times that one session is drawn: in which resamples, and what of it.

    Attributes:
        session: its place.
        rows: int (n,), the resamples.
        weight: of the session in the mean of a resample.
        images: int16 (n, n_images), how often each is drawn.
        sites: for each region its columns, int (n_sites,), and how often each is drawn, int16
            (n, n_sites).
    """

    session: int
    rows: np.ndarray
    weight: float
    images: np.ndarray
    sites: list[tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True, eq=False)
class Pooling:
    """One bootstrap for all errors of these sessions, so that any two of them are paired.

    A level with a single group is not resampled: its spread cannot be seen. Animals count alike,
    whatever their number of sessions, and so do the sessions of an animal.

    Attributes:
        sessions: in the order of the errors.
        seed: of all draws.
    """

    sessions: Sequence[Session]
    seed: int
    n_resamples: int = N_RESAMPLES

    @cached_property
    def by_animal(self) -> dict[str, list[int]]:
        """Places of the sessions of each animal."""
        found: dict[str, list[int]] = {}
        for place, session in enumerate(self.sessions):
            found.setdefault(session.animal, []).append(place)
        return found

    def levels(self) -> list[dict[str, Any]]:
        """Each level from the animals down: its ``groups`` in all, and whether it is ``resampled``."""
        sessions = self.sessions
        groups = (
            [len(self.by_animal)],
            [len(places) for places in self.by_animal.values()],
            [session.n_images for session in sessions],
            [session.regions.count(name) for session in sessions for name in set(session.regions)],
        )
        return [
            {"level": level, "groups": sum(counts), "resampled": max(counts) > 1}
            for level, counts in zip(LEVELS, groups, strict=True)
        ]

    def mean(self, errors: Sequence[np.ndarray]) -> PooledMean:
        """Pool errors.

        Args:
            errors: of each session, float64 (n_images, n_sites); NaN = not recorded.
        """
        per_animal = [
            np.mean([_session_mean(errors[place], self.sessions[place]) for place in places])
            for places in self.by_animal.values()
        ]
        resampled = np.zeros(self.n_resamples)
        for piece in self._pieces:
            values = errors[piece.session]
            there = ~np.isnan(values)
            images = piece.images.astype(np.float64)
            sums = images @ np.where(there, values, 0.0)
            complete = bool(there.all())  # every resample then has as many values
            counts = None if complete else images @ there.astype(np.float64)
            means = []
            for columns, drawn in piece.sites:
                total = (sums[:, columns] * drawn).sum(axis=1)
                if counts is None:
                    number = np.full(len(total), float(len(values) * len(columns)))
                else:
                    number = (counts[:, columns] * drawn).sum(axis=1)
                mean = np.full(len(total), np.nan)
                np.divide(total, number, out=mean, where=number > 0)
                means.append(mean)
            resampled[piece.rows] += piece.weight * np.mean(means, axis=0)
        return PooledMean(float(np.mean(per_animal)), percentile_interval(resampled), resampled)

    @cached_property
    def _pieces(self) -> list[_Piece]:
        rng = np.random.default_rng(self.seed)
        animals = list(self.by_animal.values())
        pieces = []
        for _ in animals:
            drawn = rng.integers(len(animals), size=self.n_resamples)
            for number, places in enumerate(animals):
                rows = np.flatnonzero(drawn == number)
                for _ in places:
                    which = rng.integers(len(places), size=len(rows))
                    pieces += [
                        self._piece(rng, place, rows[which == at], 1 / len(animals) / len(places))
                        for at, place in enumerate(places)
                    ]
        return pieces

    def _piece(
        self, rng: np.random.Generator, place: int, rows: np.ndarray, weight: float
    ) -> _Piece:
        session = self.sessions[place]
        images = _draws(rng, session.n_images, len(rows))
        sites = []
        for region in dict.fromkeys(session.regions):
            columns = np.flatnonzero(np.array(session.regions) == region)
            sites.append((columns, _draws(rng, len(columns), len(rows))))
        return _Piece(place, rows, weight, images, sites)


def pooled_difference(first: PooledMean, second: PooledMean) -> PooledDifference:
    """The first less the second, both of one `Pooling` and with the same gaps."""
    apart = first.resampled - second.resampled
    apart = apart[~np.isnan(apart)]
    beyond = min((apart <= 0).sum(), (apart >= 0).sum())
    return PooledDifference(
        difference=first.value - second.value,
        ci95=percentile_interval(apart),
        # None of the resamples is no proof of p = 0.
        p=float(min(1.0, 2 * (1 + beyond) / (1 + len(apart)))),
    )


def holm(p: Mapping[str, float]) -> dict[str, float]:
    """p corrected for their number so that the chance of any false claim is kept (Holm 1979)."""
    corrected, least = {}, 0.0
    for place, (key, value) in enumerate(sorted(p.items(), key=lambda item: item[1])):
        least = max(least, min(1.0, (len(p) - place) * value))
        corrected[key] = least
    return {key: corrected[key] for key in p}


def _session_mean(errors: np.ndarray, session: Session) -> float:
    regions = np.array(session.regions)
    return float(
        np.mean([np.nanmean(errors[:, regions == name]) for name in dict.fromkeys(session.regions)])
    )


def _draws(rng: np.random.Generator, n: int, times: int) -> np.ndarray:
    """How often each of n is drawn in n draws with replacement, int16 (times, n)."""
    return rng.multinomial(n, np.full(n, 1 / n), times).astype(np.int16)
