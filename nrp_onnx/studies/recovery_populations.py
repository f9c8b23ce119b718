"""A scored population of the recovery study, and its file, from which the study goes on."""

import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nrp_onnx.files import whole_file


@dataclass(frozen=True, eq=False)
class Population:
    """Simulated sites that read one layer, and how every candidate predicts them.

    Attributes:
        source: the name of the candidate that they read.
        floor: the MAE of the true rates on the held-out images, in z units.
        errors: for each candidate and predictor, predicted - recorded in z units, float64
            (n_test, n_sites).
    """

    source: str
    floor: float
    errors: dict[str, dict[str, np.ndarray]]

    def mae(self, candidate: str, predictor: str) -> float:
        """The mean absolute error of a predictor from a candidate layer."""
        return float(np.abs(self.errors[candidate][predictor]).mean())


def write_population(path: Path, fingerprint: str, population: Population) -> None:
    """Write a population as .npz, whole or not at all.

    Args:
        fingerprint: of all that decides it.
    """
    names = [(c, p) for c, found in population.errors.items() for p in found]
    arrays: dict[str, Any] = {
        f"errors_{i}": population.errors[c][p] for i, (c, p) in enumerate(names)
    }
    with whole_file(path) as part, part.open("wb") as file:
        np.savez_compressed(
            file,
            fingerprint=fingerprint,
            source=population.source,
            floor=population.floor,
            names=np.array(names),
            **arrays,
        )


def read_population(path: Path, fingerprint: str) -> Population | None:
    """The population in a file; None where there is none, or one of another fingerprint."""
    try:
        with np.load(path, allow_pickle=False) as held:
            if str(held["fingerprint"]) != fingerprint:
                return None
            errors: dict[str, dict[str, np.ndarray]] = {}
            for place, (candidate, predictor) in enumerate(held["names"].tolist()):
                errors.setdefault(candidate, {})[predictor] = held[f"errors_{place}"]
            return Population(str(held["source"]), float(held["floor"]), errors)
    except (FileNotFoundError, zipfile.BadZipFile, KeyError, ValueError):
        return None
