"""Writes the head of one fold as head.onnx, predictor.onnx and scorer.onnx."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from nrp_onnx.activations.layer_file import LayerActivations
from nrp_onnx.backbone.feature_graph import Feature, build_feature_graph
from nrp_onnx.backbone.model import Backbone
from nrp_onnx.backbone.preprocessing import Preprocessing
from nrp_onnx.errors import ModelError
from nrp_onnx.export.folded_head import FoldedHead
from nrp_onnx.export.onnx_models import (
    SCORES_KEY,
    head_model,
    predictor_model,
    save_model,
    scorer_model,
)
from nrp_onnx.export.predict import REGIONS_KEY, SITES_KEY, UNITS_KEY
from nrp_onnx.recordings import Recordings

HEAD, PREDICTOR, SCORER = "head.onnx", "predictor.onnx", "scorer.onnx"
#: In the metadata: the predictor whose rates they are, and which images it was fitted to.
PREDICTOR_KEY, TRAINED_ON_KEY = "nrp_onnx.predictor", "nrp_onnx.trained_on"
#: The exported head must give the scored rates to this part of a site's standard deviation.
_TOLERANCE = 1e-4
_IMAGES_A_RUN = 16


@dataclass(frozen=True)
class TrainedOn:
    """Which images a predictor was fitted to, for the metadata.

    Attributes:
        what: in words, such as ``the training images of fold 0``.
        n_images: how many they are.
        not_seen: ids of the stimuli that it did not see.
    """

    what: str
    n_images: int
    not_seen: list[str]


def named(file: str, all_images: bool) -> str:
    """The file of the predictor that is fitted to all images, beside that of the first fold."""
    return file.replace(".onnx", "_all.onnx") if all_images else file


def export_fold(
    folder: Path,
    head: FoldedHead,
    backbone: Backbone,
    preprocessing: Preprocessing,
    features: Sequence[Feature],
    recordings: Recordings,
    scores: dict[str, Any],
    score_scale: np.ndarray,
    score_units: str,
    headline: str,
    trained_on: TrainedOn,
    all_images: bool = False,
) -> None:
    """Write the three models.

    Args:
        features: those that the head uses, in its order.
        scores: the NRP-error of each region, for the metadata.
        score_scale: float array (n_sites,): errors are divided by these to be in units of the score.
        headline: the predictor.
        all_images: whether it is the one that is fitted to all images.
    """
    facts = {
        "nrp_onnx.schema": "1",
        SITES_KEY: json.dumps(recordings.site_ids),
        UNITS_KEY: recordings.units,
        SCORES_KEY: {
            name: {"nrp_error": error, "recordings": recordings.name}
            for name, error in scores.items()
        },
        REGIONS_KEY: json.dumps(recordings.regions),
        PREDICTOR_KEY: headline,
        TRAINED_ON_KEY: json.dumps(asdict(trained_on)),
        "nrp_onnx.simulated": json.dumps(recordings.simulated),
    }
    save_model(head_model(head, features, facts), folder / named(HEAD, all_images))
    graph = build_feature_graph(backbone, preprocessing, features)
    predictor = predictor_model(head, graph, facts)
    save_model(predictor, folder / named(PREDICTOR, all_images), backbone.path.parent)
    scorer = scorer_model(predictor, recordings.regions, score_scale, score_units)
    save_model(scorer, folder / named(SCORER, all_images), backbone.path.parent)


def check_exported_head(
    folder: Path,
    features: Sequence[Feature],
    activations: Sequence[LayerActivations],
    images: np.ndarray,
    scored: np.ndarray,
    deviation: np.ndarray,
    all_images: bool = False,
) -> float:
    """Run head.onnx on held-out images and compare it with what was scored.

    Args:
        activations: for each of the features.
        images: places of the held-out images.
        scored: the rates that the score is made of, float64 (n, n_sites).
        deviation: float array (n_sites,), standard deviation of each site's rates.

    Returns:
        The largest difference, in standard deviations.

    Raises:
        ModelError: if it is over the tolerance.
    """
    path = folder / named(HEAD, all_images)
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [feature.layer.name for feature in features]
    rates = []
    for start in range(0, len(images), _IMAGES_A_RUN):
        some = images[start : start + _IMAGES_A_RUN]
        feed = {name: x.read(some) for name, x in zip(names, activations, strict=True)}
        rates.append(session.run(None, feed)[0])
    shift = np.abs(np.concatenate(rates) - scored) / np.where(deviation > 0, deviation, 1)
    if not shift.max() <= _TOLERANCE:
        raise ModelError(
            "the exported head does not give the scored rates",
            where=path,
            expected=f"at most {_TOLERANCE} standard deviations apart",
            found=f"{shift.max():.2g}",
            fix="Please report this.",
        )
    return float(shift.max())
