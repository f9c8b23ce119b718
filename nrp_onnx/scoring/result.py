"""The typed content of result.json: the numbers of a run, and what they were computed from.

The attributes have the names of the keys of result.json, which docs/result.md describes.
"""

from dataclasses import dataclass, field
from typing import Any

import msgspec

from nrp_onnx.statistics import Interval, PairedDifference

SCHEMA_VERSION = 1
#: Of the numbers: raised with every change of the code that changes a score of the same inputs.
ALGORITHM_VERSION = 4


@dataclass(frozen=True)
class NrpError:
    """The NRP-error of a region.

    Attributes:
        value: mean absolute error of the headline predictor, in units of the score.
        ci95: its 95 % interval, bootstrapped as ``protocol.interval`` says.
        by_seed: the value for each seed of ``seeds``.
    """

    value: float
    ci95: Interval
    by_seed: list[float]


@dataclass(frozen=True)
class PredictorScore:
    """The held-out numbers of one predictor in one region; R2 and r are medians over sites.

    Attributes:
        mae: mean absolute error, in units of the score.
        mae_ci95: its 95 % interval, bootstrapped as ``protocol.interval`` says; seeds are drawn of the
            headline predictor alone.
        explainable_removed: share of the error above the noise floor that is removed. It depends on the
            noise of the sites, and is not to be compared between recordings.
        pearson_r_normalised: r / sqrt(reliability).
        mse: mean squared error, in squared units of the score; None in a result of an older version.
        mse_ci95: its 95 % interval, drawn as that of ``mae``.
        r2_normalised: median over sites of r^2 / reliability.
        r2_normalised_ci95: its 95 % interval, bootstrapped over sites.
    """

    mae: float
    mae_ci95: Interval
    r2: float | None
    pearson_r: float | None
    explainable_removed: float | None = None
    pearson_r_normalised: float | None = None
    mse: float | None = None
    mse_ci95: Interval | None = None
    r2_normalised: float | None = None
    r2_normalised_ci95: Interval | None = None


@dataclass(frozen=True)
class BrainScore:
    """Brain-Score's neural score of a region; ``reason`` says why a number is None."""

    score: float | None
    error: float | None
    r: float | None
    ceiling: float | None
    reason: str | None
    n_splits: int
    stratified_on: str | None


@dataclass(frozen=True)
class OodScore:
    """The error of one predictor on the images that are out of distribution.

    Attributes:
        mae, mse: as those of the test images, in units of the score.
        drop: ``mae`` less that of the test images; its interval draws the images of both, and the same
            sites.
    """

    mae: float
    mae_ci95: Interval
    mse: float
    pearson_r: float | None
    drop: float
    drop_ci95: Interval


@dataclass(frozen=True)
class RegionScore:
    """The numbers of one region.

    Attributes:
        noise_floor: mean absolute error of a predictor that knows the true rates, given the noise of
            the averages.
        noise_floor_share: of the held-out averages, those of two responses or more; the noise of
            the others is carried over. None in a result of an older version.
        predictors: by name, as ``mean``, ``ridge`` or ``nrp``; one that is calibrated has the name of
            the other with ``_calibrated``.
        comparisons: the headline predictor less each other.
        reliability: of the averages, median over sites: the share of variance due to the stimuli.
        shares: of the predictors that the headline mixes, and of the mean response; the mean over
            folds.
        ood: of each predictor, on the images of a fixed split that are out of distribution.
    """

    n_sites: int
    nrp_error: NrpError
    noise_floor: float | None
    predictors: dict[str, PredictorScore]
    noise_floor_reason: str | None = None
    noise_floor_share: float | None = None
    comparisons: dict[str, PairedDifference] = field(default_factory=dict)
    reliability: float | None = None
    reliability_reason: str | None = None
    brainscore: BrainScore | None = None
    shares: dict[str, float] | None = None
    ood: dict[str, OodScore] | None = None


@dataclass(frozen=True)
class LayerFacts:
    """A layer that a score used: its shape without the batch axis, and its reduction."""

    name: str
    shape: list[int]
    reduction: str
    n_features: int


@dataclass(frozen=True)
class ModelFacts:
    """The backbone of a run. ``source`` and ``preprocessing`` are JSON as the model carries them."""

    file: str
    sha256: str
    n_parameters: int
    source: dict[str, Any] | None
    preprocessing: dict[str, Any]
    layers: list[LayerFacts]
    visual_degrees: float | None = None


@dataclass(frozen=True)
class RecordingsFacts:
    """The recordings of a run.

    Attributes:
        n_sites: that are scored.
        silent_sites: ids of those that are left out, as they hardly answer.
        decoding: how images became uint8 RGB (`nrp_onnx.decoding.RULES`); None in a result of an older
            version.
    """

    name: str
    simulated: bool
    n_stimuli: int
    n_sites: int
    units: str
    missing_share: float
    fingerprint: str
    skipped_stimuli: list[str] = field(default_factory=list)
    visual_degrees: float | None = None
    citation: str | None = None
    silent_sites: list[str] = field(default_factory=list)
    decoding: dict[str, Any] | None = None


@dataclass(frozen=True)
class SplitFacts:
    """A fixed split of the recordings: its name, and how many images it has of each kind."""

    name: str
    n_train: int
    n_test: int
    n_ood: int


@dataclass(frozen=True)
class Protocol:
    """How images were split, rates scaled, and intervals drawn.

    Attributes:
        split: the fixed split of the recordings; None where the images were split at random.
    """

    name: str
    folds: int
    stratified_on: str | None
    validation_share: float
    normalise: str
    seed: int
    interval: str
    exported_fold: int
    seeds: int = 1
    split: SplitFacts | None = None


@dataclass(frozen=True)
class Trials:
    """The table of all trained heads: its file, and their number."""

    file: str
    count: int


@dataclass(frozen=True)
class SearchFacts:
    """The search of a run. ``space`` and ``best`` are JSON: what was searched, what each fold chose.

    Attributes:
        device: where heads trained; on another one, last bits differ.
        fits_on: ``images``, or ``features`` where images are many.
        sizes: of fits on features: directions a layer, channels, landmarks; None of fits on images.
    """

    preset: str
    space: dict[str, Any]
    trials: Trials
    best: list[dict[str, Any]] = field(default_factory=list)
    device: str = "cpu"
    fits_on: str = "images"
    sizes: dict[str, int] | None = None


@dataclass(frozen=True)
class ExportFacts:
    """How far head.onnx is from the scored rates, in standard deviations of each site."""

    max_difference_sd: float


@dataclass(frozen=True)
class Result:
    """The content of result.json.

    Attributes:
        nrp_error: mean over regions of their NRP-errors.
        headline: the predictor whose error is the NRP-error.
        nrp_error_ci95: its 95 % interval; None in a result of an older version.
        units: of every error: ``z``, or those of the recordings.
        timings: seconds of each step.
    """

    schema_version: int
    fingerprint: str
    nrp_error: float
    units: str
    regions: dict[str, RegionScore]
    model: ModelFacts
    recordings: RecordingsFacts
    protocol: Protocol
    search: SearchFacts
    export: ExportFacts
    provider: str
    notes: list[str]
    versions: dict[str, str]
    timings: dict[str, float]
    nrp_error_ci95: Interval | None = None
    algorithm_version: int = 0
    headline: str = "nrp"

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        content: dict[str, Any] = msgspec.to_builtins(self)
        return content

    @classmethod
    def from_json(cls, content: object) -> "Result":
        """Check and read plain JSON values.

        Raises:
            ValueError: if a key is missing or a value has another type; it names the place.
        """
        return msgspec.convert(content, cls)
