"""What the steps of a score hand on: the inputs, the plan, the activations, the fits."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from nrp_onnx.activations.layer_file import StoredLayer
from nrp_onnx.backbone.feature_graph import Feature
from nrp_onnx.backbone.model import Backbone
from nrp_onnx.backbone.preprocessing import Preprocessing
from nrp_onnx.engine import Engine
from nrp_onnx.notes import Notes
from nrp_onnx.predictor.memory import PrimalSizes
from nrp_onnx.predictor.search_space import SearchSpace
from nrp_onnx.recordings import Recordings
from nrp_onnx.scoring.choices import (
    Splitting,
)
from nrp_onnx.scoring.fold import FittedFold
from nrp_onnx.scoring.folds import Fits
from nrp_onnx.scoring.options import ScoreOptions
from nrp_onnx.scoring.splits import (
    Fold,
)


@dataclass(frozen=True)
class Inputs:
    """What is scored on what.

    Attributes:
        space: the search that ``options.search`` names.
        engine: the one that ``options.engine`` names.
        keep_model: leave a copy of the model in the output folder.
        timings: seconds of each step; steps add theirs.
    """

    backbone: Backbone
    recordings: Recordings
    space: SearchSpace
    engine: Engine
    options: ScoreOptions
    notes: Notes
    keep_model: bool = False
    timings: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Keep the seconds that the block takes."""
        start = time.perf_counter()
        yield
        self.timings[name] = round(time.perf_counter() - start, 3)


@dataclass(frozen=True)
class Plan:
    """All choices of a score, made before anything is computed."""

    preprocessing: Preprocessing
    features: list[Feature]
    normalise: str
    primal: PrimalSizes | None
    splitting: Splitting
    folds: list[Fold]
    stratified_on: str | None
    settings: dict[str, Any]


@dataclass(frozen=True)
class Extracted:
    """The activations, and the stimuli that they are of.

    Attributes:
        recordings: without the stimuli that were skipped.
        features: with the principal components of ``pca:K``, which need the images.
        silent: ids of the sites that are left out.
        provider: ONNX Runtime's execution provider.
    """

    recordings: Recordings
    folds: list[Fold]
    stratified_on: str | None
    features: list[Feature]
    activations: list[StoredLayer]
    skipped: list[str]
    silent: list[str]
    provider: str


def training_device(provider: str) -> str:
    """Where heads train: on the GPU if the activations were computed on one and PyTorch sees it.

    Args:
        provider: ONNX Runtime's execution provider that computed the activations.
    """
    on_gpu = provider in ("CUDAExecutionProvider", "TensorrtExecutionProvider")
    return "cuda" if on_gpu and torch.cuda.is_available() else "cpu"


@dataclass(frozen=True)
class Fitted:
    """What came of the folds.

    Attributes:
        coordinates: of the images for Brain-Score's metric, float32 (n_stimuli, r).
        final: the predictor that is fitted to all images, where that is asked for.
    """

    fits: Fits
    coordinates: np.ndarray
    final: FittedFold | None = None
