"""Scores each layer of a network alone: the table and the figure over depth."""

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes

from nrp_onnx.activations.extract import extract_activations
from nrp_onnx.activations.layer_file import layer_path
from nrp_onnx.backbone.choose_layers import spread_layers
from nrp_onnx.backbone.model import load_backbone
from nrp_onnx.files import write_json
from nrp_onnx.notes import Notes
from nrp_onnx.recordings import Recordings
from nrp_onnx.report.figures import (
    PANEL_HEIGHT,
    label_errors,
    save_study_figure,
    study_panels,
    whiskers,
)
from nrp_onnx.report.style import BASELINE, FLOOR, HEAD, MUTED, NamedFigure
from nrp_onnx.report.words import predictor_name
from nrp_onnx.scoring.choices import choose_features, choose_preprocessing, choose_visual_degrees
from nrp_onnx.scoring.options import ScoreOptions
from nrp_onnx.studies.scored_models import (
    StudiedModel,
    record_of,
    score_models,
    study_facts,
    write_csv,
)

#: Key of the record, colour, line, and how far aside points stand so that intervals can be told apart.
_CURVES = (
    ("nrp_error", HEAD, "o-", 0.0),
    ("ridge", BASELINE, "s--", -0.12),
    ("pls", MUTED, "^:", 0.12),
)
_INCHES_A_LAYER, _LONGEST_NAME = 0.5, 28


def layers_figure(study: Mapping[str, Any]) -> NamedFigure:
    """Args: study: the content of layers.json."""
    records = study["layers"]
    regions = list(records[0]["regions"])
    width = max(5.0, 1.4 + _INCHES_A_LAYER * len(records))
    height = PANEL_HEIGHT * len(regions) + 1.0
    with study_panels(
        len(regions), 1, height, width, simulated=study["recordings"]["simulated"], sharex=True
    ) as axes:
        for row, region in enumerate(regions):
            _region(axes[row, 0], records, region, study["headline"])
            axes[row, 0].set_title(region)
            label_errors(axes[row, 0].yaxis, study["units"], "error")
        bottom = axes[-1, 0]
        bottom.set_xticks(
            range(len(records)), [_short(record["layer"]) for record in records], rotation=55,
            ha="right", rotation_mode="anchor",
        )  # fmt: skip
        bottom.set_xlabel("layer alone, from the image on")
        handles, labels = axes[0, 0].get_legend_handles_labels()
        bottom.figure.legend(handles, labels, loc="outside upper left", ncols=2)
    return NamedFigure(
        "layers",
        "Error of predictors that see one layer alone, with 95 % intervals over images and sites.",
        bottom.figure,
    )


def _region(axes: Axes, records: list[dict[str, Any]], region: str, headline: str) -> None:
    found = [record["regions"][region] for record in records]
    for key, colour, style, aside in _CURVES:
        own = key == "nrp_error"
        values = [of[key] if own else of[key]["mae"] for of in found]
        intervals = [of["ci95"] if own else of[key]["ci95"] for of in found]
        axes.errorbar(
            [place + aside for place in range(len(found))], values,
            yerr=whiskers(values, intervals), fmt=style, color=colour, label=predictor_name(headline if own else key),
            capsize=2, markersize=4.5, linewidth=1.4, elinewidth=0.8,
        )  # fmt: skip
    floor = found[0]["noise_floor"]
    if floor is not None:
        axes.axhline(floor, color=FLOOR, linewidth=1.2, linestyle="-.", label="noise floor")


def _short(name: str) -> str:
    """The end of a long name: it tells layers of one stage apart."""
    return name if len(name) <= _LONGEST_NAME else f"…{name[1 - _LONGEST_NAME :]}"


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
        chosen = options.layers
        named = chosen.split(",") if isinstance(chosen, str) else list(chosen)
    features = choose_features(backbone, named, options.reduce, recordings.n_stimuli, notes)
    spec = choose_preprocessing(backbone, options.preprocess, notes)
    spec = choose_visual_degrees(options.visual_degrees, recordings, spec, notes)
    store = out / "activations"
    extract_activations(
        backbone, spec, features, recordings, store, options.device, notes, overwrite=True
    )
    models = []
    for feature in features:
        name = feature.layer.name
        alone = replace(options, layers=(name,), reduce=str(feature.reduction), activations=store)
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
