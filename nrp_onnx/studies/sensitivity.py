"""The sensitivity of a backbone to changes of images: how far these move its scored layers."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nrp_converters.converted_model import ClassGradient
from nrp_onnx.activations.compute import Request
from nrp_onnx.activations.extract import with_components
from nrp_onnx.backbone.feature_graph import Feature, with_known_shapes
from nrp_onnx.backbone.model import Backbone, load_backbone
from nrp_onnx.backbone.preprocessing import Preprocessing, preprocessing_from_json
from nrp_onnx.backbone.reductions import read_reduction
from nrp_onnx.decoding import decode_image
from nrp_onnx.errors import ModelError
from nrp_onnx.files import sha256_of_json, write_json
from nrp_onnx.notes import Notes
from nrp_onnx.recordings import Recordings
from nrp_onnx.scoring.options import ScoreOptions
from nrp_onnx.scoring.result import ModelFacts
from nrp_onnx.scoring.run import FinishedRun
from nrp_onnx.statistics import percentile_interval
from nrp_onnx.studies.gradients import Fgsm, check_same_network
from nrp_onnx.studies.perturbed_distances import (
    GaussianNoise,
    Perturbation,
    PerturbedDistances,
    measure_distances,
)

_N_RESAMPLES = 2000
#: Images on which a network with gradients has to give the backbone's scores.
_CHECKED = 2

GradientOf = Callable[[Backbone, Preprocessing], ClassGradient]


def sensitivity_of(
    distances: PerturbedDistances, names: Sequence[str], seed: int = 0
) -> dict[str, Any]:
    """The mean over images of ||f(x + e) - f(x)|| / the mean over pairs of ||f(x) - f(x')||.

    0: the change e moves nothing; 1: as far as another image.

    Args:
        distances: of n images.
        names: of the layers.
        seed: of the bootstrap over images.

    Returns:
        ``levels``: for each the mean over layers as ``value``, its 95 % interval ``ci95``, and
        ``layers``, the value of each; ``without``, layers that tell no two images apart, which are
        left out.
    """
    n = distances.moved.shape[-1]
    told: np.ndarray = np.flatnonzero(distances.apart.any(axis=(1, 2)))
    moved, apart = distances.moved[:, told], distances.apart[told]
    values = moved.mean(axis=-1) / (apart.sum(axis=(1, 2)) / (n * (n - 1)))
    counts = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), _N_RESAMPLES)
    # An image that is drawn twice is no pair of different images.
    pairs = n**2 - (counts**2).sum(axis=1)
    summed = np.stack([((counts @ of) * counts).sum(axis=1) for of in apart])
    # Of a handful of images a resample may hold one alone, from which nothing is apart.
    whole = (summed > 0).all(axis=0)
    counts, between = counts[whole], summed[:, whole] / pairs[whole]
    levels = []
    for value, of_level in zip(values, moved, strict=True):
        resampled = (of_level @ counts.T / n / between).mean(axis=0)
        levels.append(
            {
                "value": float(value.mean()),
                "ci95": list(percentile_interval(resampled)),
                "layers": {names[i]: float(of) for i, of in zip(told.tolist(), value, strict=True)},
            }
        )
    without = [name for i, name in enumerate(names) if i not in set(told.tolist())]
    return {"levels": levels, "without": without}


def measured_sensitivity(
    model: Path,
    run: FinishedRun,
    recordings: Recordings,
    levels: Sequence[float],
    n_images: int,
    options: ScoreOptions,
    kept: Path,
    gradient_of: GradientOf | None = None,
) -> dict[str, Any]:
    """The sensitivity of the layers that were scored, as they were scored.

    Args:
        run: of the model.
        levels: in grey levels of 255.
        n_images: how many stimuli are drawn, without replacement.
        kept: where it is left; what is there already from the same is not measured again.
        gradient_of: gives the network's gradients, along which FGSM changes images; None changes them
            by Gaussian noise.

    Returns:
        As `sensitivity_of`.

    Raises:
        ModelError: if the scored layers tell no two images apart.
        NrpOnnxError: if there are no gradients.
    """
    backbone, scored = load_backbone(model), run.result.model
    skipped = set(run.result.recordings.skipped_stimuli)
    recorded = [i for i, name in enumerate(recordings.stimulus_ids) if name not in skipped]
    places = np.random.default_rng(options.seed).permutation(recorded)[:n_images]
    settings = {
        "model": backbone.sha256,
        "preprocessing": scored.preprocessing,
        "layers": {layer.name: layer.reduction for layer in scored.layers},
        "stimuli": recordings.stimuli_fingerprint,
        "places": np.sort(places).tolist(),
        "fgsm" if gradient_of else "levels": list(levels),
        "seed": options.seed,
    }
    fingerprint = sha256_of_json(settings)
    held = _held(kept, fingerprint)
    if held is not None:
        return held
    notes = Notes()
    preprocessing = preprocessing_from_json(scored.preprocessing, backbone.path)
    images = [(int(place), recordings.stimulus_paths[place]) for place in np.sort(places)]
    perturbation: Perturbation = GaussianNoise(levels, options.seed)
    of_prepared = preprocessing
    if gradient_of:
        gradient = gradient_of(backbone, preprocessing)
        fgsm = Fgsm(levels, preprocessing, gradient)
        some = fgsm.prepared([decode_image(path) for _, path in images[:_CHECKED]])
        check_same_network(backbone, gradient, fgsm.network_input(np.stack(some)))
        perturbation, of_prepared = fgsm, fgsm.preprocessing
    request = Request(backbone, preprocessing, options.device, notes, bool(skipped), True)
    features = with_components(
        request, _features(backbone, scored), recordings, run.folder / "activations"
    )
    distances = measure_distances(
        backbone, of_prepared, features, images, perturbation, options.device, notes
    )
    if not distances.apart.any():
        raise ModelError(
            "the scored layers tell no two images apart",
            where=model,
            expected="activations that depend on the image",
            found="the same for all",
        )
    names = [feature.layer.name for feature in features]
    found = sensitivity_of(distances, names, options.seed)
    if found["without"]:
        notes.say(
            f"left out of the sensitivity of {model.name}, being the same for all images: "
            f"{', '.join(found['without'])}"
        )
    write_json(kept, {"fingerprint": fingerprint, "settings": settings, "sensitivity": found})
    return found


def _features(backbone: Backbone, scored: ModelFacts) -> list[Feature]:
    """The layers of a run with the reductions that they had."""
    by_name = {layer.name: layer for layer in backbone.layers}
    layers = with_known_shapes(backbone, [by_name[layer.name] for layer in scored.layers])
    return [
        Feature(layer, read_reduction(held.reduction))
        for layer, held in zip(layers, scored.layers, strict=True)
    ]


def _held(path: Path, fingerprint: str) -> dict[str, Any] | None:
    """What an earlier run of the study left; None where it measured something else."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        found: dict[str, Any] = content["sensitivity"]
        return found if content["fingerprint"] == fingerprint else None
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None
