"""The study of layers: the NRP-error of each layer alone, from the image to the class scores."""

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

from nrp_onnx.activations.extraction import extract_activations
from nrp_onnx.activations.store import layer_path
from nrp_onnx.backbone.model import load_backbone
from nrp_onnx.backbone.selection import spread_layers
from nrp_onnx.files import write_json
from nrp_onnx.main_job import ScoreOptions
from nrp_onnx.notes import Notes
from nrp_onnx.recordings import Recordings
from nrp_onnx.report.layers_figure import layers_figure
from nrp_onnx.report.study_figures import save_study_figure
from nrp_onnx.scoring.choices import (
    choose_features,
    choose_preprocessing,
    choose_visual_degrees,
)
from nrp_onnx.studies.records import record_of, study_facts, write_csv
from nrp_onnx.studies.scored_models import StudiedModel, score_models

#: How many layers ``auto`` takes at most.
AUTO_LAYERS = 12


def study_layers(
    model: Path, recordings: Recordings, out: Path, options: ScoreOptions
) -> dict[str, Any]:
    """Score a model once for each layer, on the activations of that layer alone.

    The activations of all layers are computed in one pass over the images, into ``out/activations``,
    with the reduction that suits all of them together. Runs are in ``out/runs``; finished ones are
    taken as they are.

    Args:
        options: ``layers`` names them: ``auto`` takes up to `AUTO_LAYERS` ends of blocks, evenly
            spaced over the depth; ``all`` all of them.

    Returns:
        The content of layers.json: a record a layer, in order of depth.

    Raises:
        OptionError: for a layer or reduction that does not exist.
        ModelError: at the end, if a layer was not scored.
    """
    notes = Notes()
    backbone = load_backbone(model)
    if options.layers == "auto":
        named = [layer.name for layer in spread_layers(backbone, AUTO_LAYERS)]
        notes.say(f"--layers auto: {', '.join(named)}")
    elif options.layers == "all":
        named = [
            layer.name for layer in {layer.tensor: layer for layer in backbone.layers}.values()
        ]
    else:
        named = [options.layers]
    features = choose_features(
        backbone, ",".join(named), options.reduce, recordings.n_stimuli, notes
    )
    spec = choose_preprocessing(backbone, options.preprocess, notes)
    spec = choose_visual_degrees(options.visual_degrees, recordings, spec, notes)
    store = out / "activations"
    extract_activations(backbone, spec, features, recordings, store, options.device, notes)
    models = []
    for feature in features:
        name = feature.layer.name
        alone = replace(options, layers=name, reduce=str(feature.reduction), activations=store)
        folder = layer_path(Path(), name).name.removesuffix(".parquet")
        models.append(StudiedModel(folder, lambda: nullcontext(model), alone))
    scored = score_models(models, recordings, out / "runs")
    if not scored.results:
        scored.check(out)
    records = []
    for studied, feature in zip(models, features, strict=True):
        if studied.name in scored.results:
            record = record_of(studied.name, scored.results[studied.name], options.seed)
            layer = feature.layer
            records.append({"layer": layer.name, "depth": layer.depth, "op": layer.op, **record})
    study = {
        **study_facts("layers", scored.results),
        "model": model.name,
        "layers": records,
        "failed": scored.failed,
    }
    write_json(out / "layers.json", study)
    write_csv(out / "layers.csv", records)
    save_study_figure(layers_figure(study), out)
    scored.check(out)
    return study
