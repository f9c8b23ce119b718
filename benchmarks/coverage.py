"""How often a 95 % interval of the NRP-error holds what it is an interval of.

Usage: python benchmarks/coverage.py [--rounds 1000] [--sites 5 20 50] [--images 200]

Absolute errors are made of effects of animals, sessions, sites, images, seeds and all else, so the mean over
all animals, sites, images and seeds is known: each round draws all of them anew, takes the interval as a
score does, and counts whether it holds that mean. Each row is one design.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nrp_onnx.bootstrap import bootstrap_means, nested_levels, percentile_interval

#: The mean of all errors, and the standard deviation of what is left of an error.
MEAN, REST = 0.8, 0.5


@dataclass(frozen=True)
class Design:
    """Standard deviations of the effects, and how many groups there are.

    Attributes:
        site, image, session, animal, seed: standard deviations of the effects.
        sessions: of each animal.
        levels: whether the interval knows of animals and sessions.
    """

    name: str
    site: float = 0.12
    image: float = 0.1
    session: float = 0.0
    animal: float = 0.0
    seed: float = 0.0
    sessions: int = 1
    animals: int = 1
    seeds: int = 1
    levels: bool = True


DESIGNS = (
    Design("sites and images"),
    Design("5 seeds", seed=0.02, seeds=5),
    Design("10 sessions, drawn", session=0.1, sessions=10),
    Design("10 sessions, not drawn", session=0.1, sessions=10, levels=False),
    Design("2 animals of 5 sessions, drawn", session=0.1, sessions=5, animal=0.1, animals=2),
    Design("8 animals of 2 sessions, drawn", session=0.1, sessions=2, animal=0.1, animals=8),
)


def errors_of(
    design: Design, n_images: int, n_sites: int, rng: np.random.Generator
) -> tuple[np.ndarray, dict[str, tuple[str, ...]]]:
    """Errors, float64 (n_seeds, n_images, n_sites), and the animal and session of each site."""
    place = np.arange(n_sites)
    animal = place % design.animals
    session = place // design.animals % design.sessions
    of_animals = design.animal * rng.standard_normal(design.animals)
    of_sessions = design.session * rng.standard_normal((design.animals, design.sessions))
    of_sites = design.site * rng.standard_normal(n_sites)
    columns = MEAN + of_animals[animal] + of_sessions[animal, session] + of_sites
    # Errors of images are skewed, as errors are.
    rows = design.image * (rng.exponential(1, n_images) - 1)
    of_seeds = design.seed * rng.standard_normal(design.seeds)
    rest = REST * rng.standard_normal((n_images, n_sites))
    errors = of_seeds[:, None, None] + rows[:, None] + columns + rest
    return errors, {
        "animal": tuple(map(str, animal.tolist())),
        "session": tuple(map(str, session.tolist())),
    }


def coverage(
    design: Design, n_images: int, n_sites: int, rounds: int, seed: int = 0, n_resamples: int = 1000
) -> float:
    """The share of rounds whose 95 % interval holds `MEAN`."""
    held = 0
    for number in range(rounds):
        rng = np.random.default_rng([seed, number])
        errors, labels = errors_of(design, n_images, n_sites, rng)
        levels = tuple(nested_levels(labels, range(n_sites)).values()) if design.levels else ()
        values = errors if design.seeds > 1 else errors[0]
        low, high = percentile_interval(bootstrap_means(values, number, n_resamples, levels))
        held += low <= MEAN <= high
    return held / rounds


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=1000)
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--sites", type=int, nargs="+", default=[5, 20, 50])
    given = parser.parse_args(arguments)
    print(f"| {given.images} images | " + " | ".join(f"{n} sites" for n in given.sites) + " |")
    print("|---" * (1 + len(given.sites)) + "|")
    for design in DESIGNS:
        found = [coverage(design, given.images, n, given.rounds) for n in given.sites]
        print(
            f"| {design.name} | " + " | ".join(f"{share:.3f}" for share in found) + " |", flush=True
        )


if __name__ == "__main__":
    main()
