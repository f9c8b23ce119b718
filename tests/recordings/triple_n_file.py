"""Makes what a processed session of Triple-N holds, and its shared images."""

from pathlib import Path

import numpy as np

from tests.recordings.scenes import coarse_images, follow, save_images

N_UNITS = 5
FILE = "Processed_ses01_240629_M1_2.mat"


def write_shared_images(folder: Path) -> None:
    """The 1,000 shared images, numbered as in NSD."""
    names = [f"shared{place:04d}_nsd{place * 70:05d}.png" for place in range(1, 1001)]
    save_images(folder, names, coarse_images(1000))


def processed_session() -> dict[str, np.ndarray]:
    """Variables of a file of 5 units, as MATLAB has them."""
    rng = np.random.default_rng(0)
    shared = follow(coarse_images(1000), N_UNITS).T
    rates = np.hstack([shared, rng.normal(size=(N_UNITS, 72))]) + 5
    return {
        "response_best": rates,
        "response_basic": rates + rng.normal(size=rates.shape),
        "reliability_best": np.array([[0.9, 0.3, 0.7, 0.41, np.nan]]),
        "reliability_basic": np.array([[0.8, 0.2, 0.6, 0.3, 0.1]]),
        "best_t_time": np.arange(5.0)[None] * 10 + 70,
        "pos": np.arange(5.0)[None] * 100,
        "snr": np.ones((1, 5)),
        "UnitType": np.array([[1, 2, 3, 4, 1]], float),
    }
