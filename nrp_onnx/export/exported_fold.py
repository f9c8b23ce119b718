"""Writes the head of one fold as head.onnx, predictor.onnx and scorer.onnx."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import onnxruntime as ort

from nrp_onnx.activations.layer_file import LayerActivations
from nrp_onnx.backbone.feature_graph import Feature, build_feature_graph
from nrp_onnx.backbone.model import Backbone
from nrp_onnx.backbone.preprocessing import Preprocessing
from nrp_onnx.errors import ModelError
from nrp_onnx.export.card import Card
from nrp_onnx.export.folded_head import FoldedHead
from nrp_onnx.export.onnx_models import (
    head_model,
    predictor_model,
    save_model,
    scorer_model,
)
from nrp_onnx.files import write_json
from nrp_onnx.recordings import Recordings

HEAD, PREDICTOR, SCORER = "head.onnx", "predictor.onnx", "scorer.onnx"
#: The card of all three.
CARD = "predictor.json"
#: The exported head must give the scored rates to this part of a site's standard deviation.
_TOLERANCE = 1e-4
_IMAGES_A_RUN = 16


def named(file: str, all_images: bool) -> str:
    """The file of the predictor that is fitted to all images, beside that of the first fold."""
    path = Path(file)
    return f"{path.stem}_all{path.suffix}" if all_images else file


def export_fold(
    folder: Path,
    head: FoldedHead,
    backbone: Backbone,
    preprocessing: Preprocessing,
    features: Sequence[Feature],
    recordings: Recordings,
    card: Card,
    score_scale: np.ndarray,
    all_images: bool = False,
) -> None:
    """Write the three models and their card.

    Args:
        features: those that the head uses, in its order.
        card: of the predictor; its metadata, and a JSON file beside it.
        score_scale: float array (n_sites,): errors are divided by these to be in units of the score.
        all_images: whether it is the one that is fitted to all images.
    """
    facts = card.metadata()
    write_json(folder / named(CARD, all_images), asdict(card))
    save_model(head_model(head, features, facts), folder / named(HEAD, all_images))
    graph = build_feature_graph(backbone, preprocessing, features)
    predictor = predictor_model(head, graph, facts)
    save_model(predictor, folder / named(PREDICTOR, all_images), backbone.path.parent)
    scorer = scorer_model(predictor, recordings.regions, score_scale, card.score_units)
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
