"""Neural recordings in memory: which image was shown when, and what each site answered."""

import hashlib
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np
import scipy.sparse
from msgspec import Meta

from nrp_onnx.errors import OptionError, RecordingsError
from nrp_onnx.files import sha256_of_file, sha256_of_json
from nrp_onnx.recordings.fixed_splits import COLUMN, DEFAULT, FixedSplit, split_of_column

#: Of the visual field: what an image can fill.
Degrees = Annotated[float, Meta(gt=0, le=180)]
DEGREES = "degrees, over 0 and at most 180"


def check_degrees(value: float | None) -> None:
    """Refuse what is neither None nor `Degrees`.

    Raises:
        OptionError: which names ``--visual-degrees``.
    """
    if value is not None and not (isinstance(value, int | float) and 0 < value <= 180):
        raise OptionError(
            "no image is that large", where="--visual-degrees", expected=DEGREES, found=value
        )


#: What splits are stratified on, unless the recordings name another label.
STRATIFY_ON = "object_name"
_SITES_A_BLOCK, _ROWS_A_BLOCK = 32, 16384


# Compared by identity: == of two arrays is no truth value.
@dataclass(frozen=True, eq=False)
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
        time_window_ms: after stimulus onset, in which the spikes were counted.
        licence, citation: of the data, where known.
        simulated: whether the responses come from a model rather than from a brain.
        provenance: where the data came from and what was done to them, as JSON.
        noise_free: float32 array of shape (n_stimuli, n_sites), the true rates of a simulation.
        visual_degrees: that an image filled when it was shown, where known.
        stratify_on: the label of the stimuli that splits are stratified on; None: object_name.
        named_splits: fixed splits by name, beside the one in the label ``split`` of the stimuli.
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
    provenance: dict[str, Any] = field(default_factory=dict)
    noise_free: np.ndarray | None = None
    visual_degrees: float | None = None
    stratify_on: str | None = None
    named_splits: dict[str, FixedSplit] = field(default_factory=dict)

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

    @property
    def stratification_label(self) -> str:
        """The label that splits are stratified on, where the stimuli have one of that name."""
        return self.stratify_on or STRATIFY_ON

    @property
    def splits(self) -> dict[str, FixedSplit]:
        """All fixed splits by name; that of the label ``split`` is called ``default``."""
        if COLUMN not in self.stimulus_labels:
            return self.named_splits
        of_column = split_of_column(self.stimulus_ids, self.stimulus_labels[COLUMN])
        return {DEFAULT: of_column, **self.named_splits}

    def repetition_counts(self) -> np.ndarray:
        """How often each site was recorded for each stimulus: int64 array (n_stimuli, n_sites)."""
        return self._sum_by_stimulus(lambda block: ~np.isnan(block)).astype(np.int64)

    @cached_property
    def averages(self) -> np.ndarray:
        """Mean over repetitions, float64 array (n_stimuli, n_sites); NaN if never recorded."""
        counts = self.repetition_counts()
        sums = self._sum_by_stimulus(np.nan_to_num)
        averages = np.full(sums.shape, np.nan)
        np.divide(sums, counts, out=averages, where=counts > 0)
        return averages

    def _sum_by_stimulus(self, change: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        """Sums over presentations of changed responses, float64 array (n_stimuli, n_sites).

        The sites are taken in blocks, so that few responses are float64 at a time.
        """
        n = len(self.presentation_stimulus)
        # A product with a sparse matrix of ones is many times faster than np.add.at.
        ones = scipy.sparse.csr_array(
            (np.ones(n), (self.presentation_stimulus, np.arange(n))), shape=(self.n_stimuli, n)
        )
        sums = np.empty((self.n_stimuli, self.n_sites))
        for start in range(0, self.n_sites, _SITES_A_BLOCK):
            block = slice(start, start + _SITES_A_BLOCK)
            sums[:, block] = ones @ change(self.responses[:, block]).astype(np.float64)
        return sums

    def select_regions(self, names: Sequence[str]) -> "Recordings":
        """The same recordings with the sites of some regions only, in their old order.

        Raises:
            OptionError: for a region that has no site, or no region at all.
        """
        unknown = [name for name in names if name not in self.regions]
        if unknown or not names:
            raise OptionError(
                "the recordings have no such region" if unknown else "no region is named",
                where="--region",
                expected=f"one or more of {', '.join(self.region_names)}",
                found=", ".join(unknown) or "none",
            )
        return self.select_sites(
            [place for place, region in enumerate(self.regions) if region in names]
        )

    def select_sites(self, places: Sequence[int] | np.ndarray) -> "Recordings":
        """The same recordings with the sites at some places only, in the order of the places."""
        places = list(places)

        def pick(values: tuple[str, ...]) -> tuple[str, ...]:
            return tuple(values[place] for place in places)

        return replace(
            self,
            site_ids=pick(self.site_ids),
            regions=pick(self.regions),
            site_labels={key: pick(values) for key, values in self.site_labels.items()},
            responses=self.responses[:, places],
            noise_free=None if self.noise_free is None else self.noise_free[:, places],
        )

    def without_stimuli(self, names: Collection[str]) -> "Recordings":
        """The same recordings without some stimuli and their presentations."""
        kept = np.array([name not in names for name in self.stimulus_ids])
        shown = kept[self.presentation_stimulus]
        places = np.cumsum(kept) - 1

        def pick(values: tuple[Any, ...]) -> tuple[Any, ...]:
            return tuple(value for value, keep in zip(values, kept, strict=True) if keep)

        return replace(
            self,
            stimulus_ids=pick(self.stimulus_ids),
            stimulus_paths=pick(self.stimulus_paths),
            stimulus_labels={key: pick(values) for key, values in self.stimulus_labels.items()},
            responses=self.responses[shown],
            presentation_stimulus=places[self.presentation_stimulus[shown]],
            repetition=self.repetition[shown],
            noise_free=None if self.noise_free is None else self.noise_free[kept],
            named_splits={key: split.without(names) for key, split in self.named_splits.items()},
        )

    @cached_property
    def stimuli_fingerprint(self) -> str:
        """SHA-256 over the ids and the bytes of all stimuli, in order.

        Raises:
            RecordingsError: if an image is gone.
        """
        pairs = []
        for name, path in zip(self.stimulus_ids, self.stimulus_paths, strict=True):
            try:
                pairs.append([name, sha256_of_file(path)])
            except OSError as error:
                raise RecordingsError(
                    f"the image of stimulus {name} cannot be read",
                    where=path,
                    found=error.strerror,
                ) from None
        return sha256_of_json(pairs)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over all that can change a score: stimuli, sites, labels, responses, units."""
        arrays = hashlib.sha256()
        for array, dtype in (
            (self.responses, "<f4"),
            (self.presentation_stimulus, "<i8"),
            (self.repetition, "<i4"),
        ):
            for start in range(0, len(array), _ROWS_A_BLOCK):
                block = np.array(array[start : start + _ROWS_A_BLOCK], dtype, order="C")
                if dtype == "<f4":
                    # NaN has many bit patterns, and all of them mean missing.
                    block[np.isnan(block)] = np.float32(np.nan)
                arrays.update(block.data)
        return sha256_of_json(
            [
                self.stimuli_fingerprint,
                self.stimulus_labels,
                self.site_ids,
                self.regions,
                self.site_labels,
                self.units,
                self.normalised,
                None if self.visual_degrees is None else float(self.visual_degrees),
                self.stratify_on,
                arrays.hexdigest(),
                *([msgspec.to_builtins(self.named_splits)] if self.named_splits else []),
            ]
        )
