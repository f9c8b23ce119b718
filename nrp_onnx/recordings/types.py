"""Neural recordings in memory: which image was shown when, and what each site answered."""

import hashlib
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from nrp_onnx.errors import OptionError
from nrp_onnx.files import sha256_of_file, sha256_of_json


@dataclass(frozen=True)
class Recordings:
    """Responses of sites to stimuli, in the words of BrainIO.

    Attributes:
        name: of the data set.
        stimulus_ids: ids of the stimuli, in the order of stimuli.csv.
        stimulus_paths: their image files.
        stimulus_labels: further columns of stimuli.csv, such as ``object_name``.
        site_ids, regions: one a site.
        site_labels: further columns of sites.csv, such as ``animal``.
        responses: float32 array of shape (n_presentations, n_sites); NaN is missing.
        presentation_stimulus: int64 array of shape (n_presentations,), places in stimulus_ids.
        repetition: int32 array of shape (n_presentations,).
        units: of the responses.
        normalised: whether the rates were normalised by the recorder, such as to a blank stimulus.
        time_window_ms: after stimulus onset.
        noise_free: float32 array of shape (n_stimuli, n_sites), the true rates of a simulation.
    """

    name: str
    stimulus_ids: tuple[str, ...]
    stimulus_paths: tuple[Path, ...]
    stimulus_labels: dict[str, tuple[str, ...]]
    site_ids: tuple[str, ...]
    regions: tuple[str, ...]
    site_labels: dict[str, tuple[str, ...]]
    responses: np.ndarray
    presentation_stimulus: np.ndarray
    repetition: np.ndarray
    units: str = "unknown"
    normalised: bool = False
    time_window_ms: tuple[float, float] | None = None
    licence: str | None = None
    citation: str | None = None
    simulated: bool = False
    provenance: dict[str, Any] | None = None
    noise_free: np.ndarray | None = None

    @property
    def n_stimuli(self) -> int:
        return len(self.stimulus_ids)

    @property
    def n_sites(self) -> int:
        return len(self.site_ids)

    @property
    def region_names(self) -> tuple[str, ...]:
        """The regions, in the order in which their first sites come."""
        return tuple(dict.fromkeys(self.regions))

    def repetition_counts(self) -> np.ndarray:
        """How often each site was recorded for each stimulus: int array (n_stimuli, n_sites)."""
        counts = np.zeros((self.n_stimuli, self.n_sites), np.int64)
        np.add.at(counts, self.presentation_stimulus, ~np.isnan(self.responses))
        return counts

    @cached_property
    def averages(self) -> np.ndarray:
        """Mean over repetitions, float64 array (n_stimuli, n_sites); NaN where none was recorded."""
        sums = np.zeros((self.n_stimuli, self.n_sites))
        np.add.at(sums, self.presentation_stimulus, np.nan_to_num(self.responses))
        with np.errstate(invalid="ignore"):
            return sums / self.repetition_counts()

    def select_regions(self, names: list[str]) -> "Recordings":
        """The same recordings with the sites of some regions only.

        Raises:
            OptionError: for a region that has no site.
        """
        for name in names:
            if name not in self.regions:
                raise OptionError(
                    "the recordings have no such region",
                    where="--region",
                    expected=f"one of {', '.join(self.region_names)}",
                    found=repr(name),
                )
        keep = [place for place, region in enumerate(self.regions) if region in names]
        pick = lambda values: tuple(values[place] for place in keep)  # noqa: E731
        return replace(
            self,
            site_ids=pick(self.site_ids),
            regions=pick(self.regions),
            site_labels={key: pick(values) for key, values in self.site_labels.items()},
            responses=self.responses[:, keep],
            noise_free=None if self.noise_free is None else self.noise_free[:, keep],
        )

    @cached_property
    def stimuli_fingerprint(self) -> str:
        """SHA-256 over the ids and the bytes of all stimuli, in order."""
        pairs = zip(self.stimulus_ids, self.stimulus_paths, strict=True)
        return sha256_of_json([[name, sha256_of_file(path)] for name, path in pairs])

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over all that can change a score."""
        arrays = hashlib.sha256()
        for array in (self.responses, self.presentation_stimulus, self.repetition):
            arrays.update(np.ascontiguousarray(array).data)
        return sha256_of_json(
            [
                self.stimuli_fingerprint,
                self.stimulus_labels,
                self.site_ids,
                self.regions,
                self.units,
                self.normalised,
                arrays.hexdigest(),
            ]
        )
