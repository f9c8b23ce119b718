"""The main job: a backbone and recordings in; NRP-error, held-out predictions and ONNX files out."""

import json
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from nrp_onnx.activations.extraction import extract_activations
from nrp_onnx.activations.store import read_activations
from nrp_onnx.backbone.feature_graph import Feature, build_feature_graph, with_known_shapes
from nrp_onnx.backbone.model import Backbone, load_backbone
from nrp_onnx.backbone.preprocessing import PRESETS, Preprocessing, read_preprocessing
from nrp_onnx.backbone.preprocessing_nodes import check_fits
from nrp_onnx.backbone.reductions import auto_reduction, read_reduction, reduction_for
from nrp_onnx.backbone.selection import select_layers
from nrp_onnx.errors import ModelError, OptionError
from nrp_onnx.export.folded_head import fold_head
from nrp_onnx.export.onnx_head import (
    SCORES_KEY,
    SITES_KEY,
    UNITS_KEY,
    head_model,
    predictor_model,
    save_model,
)
from nrp_onnx.files import write_json
from nrp_onnx.notes import Notes
from nrp_onnx.predictor.search import read_search
from nrp_onnx.recordings import Recordings, open_recordings
from nrp_onnx.scoring.fitting import Fits, fit_folds, notes_on_layers
from nrp_onnx.scoring.predictions import write_predictions
from nrp_onnx.scoring.regions import score_regions
from nrp_onnx.scoring.run_folder import RESULT_FILE, claim_folder, run_fingerprint
from nrp_onnx.scoring.splits import STRATIFY_ON, VALIDATION_SHARE, Fold, outer_folds, stratification

SCHEMA_VERSION = 1
_PACKAGES = ("nrp-onnx", "numpy", "onnx", "onnx-ir", "torch", "scikit-learn", "ikpls", "pyarrow")
#: The exported head must give the scored rates to this part of a site's standard deviation.
_EXPORT_TOLERANCE = 1e-3


@dataclass(frozen=True)
class ScoreOptions:
    """What a user can choose about a score; the defaults are those of the command line."""

    layers: str = "auto"
    reduce: str = "auto"
    preprocess: str | None = None
    regions: tuple[str, ...] = ()
    normalise: str | None = None
    search: str = "paper"
    folds: int = 5
    seed: int = 0
    device: str = "auto"
    overwrite: bool = False


def score(
    model: str | Path,
    recordings: Recordings | str | Path | None = None,
    out: str | Path | None = None,
    options: ScoreOptions | None = None,
) -> dict[str, Any]:
    """Score a backbone on recordings.

    Args:
        model: path of an ONNX file.
        recordings: a recordings folder, ``simulated``, ``simulated:N``, or `Recordings`; None
            takes the simulated ones.
        out: the output folder; None makes one under ``runs`` from the names of model and
            recordings.

    Returns:
        The content of result.json, and ``folder``, where the files are.

    Raises:
        NrpOnnxError: for anything that is wrong with what was given.
    """
    options, notes = options or ScoreOptions(), Notes()
    timings: dict[str, float] = {}
    backbone = load_backbone(Path(model))
    space = read_search(options.search)
    if not isinstance(recordings, Recordings):
        with _timed(timings, "recordings_s"):
            recordings = open_recordings(recordings, notes)
    if options.regions:
        recordings = recordings.select_regions(list(options.regions))
    preprocessing = _preprocessing(backbone, options.preprocess, notes)
    features = _features(backbone, options, recordings.n_stimuli, notes)
    normalise = _normalise(options.normalise, recordings, notes)
    folds = outer_folds(recordings, options.folds, options.seed)
    stratified = stratification(recordings, options.folds) is not None
    if not stratified:
        notes.say(f"the folds are not stratified: no {STRATIFY_ON} labels, or too few of a class")
    settings = {
        "model": backbone.sha256,
        "recordings": recordings.fingerprint,
        "layers": [feature.layer.name for feature in features],
        "reduce": [str(feature.reduction) for feature in features],
        "preprocess": preprocessing.to_json(),
        "normalise": normalise,
        "search": options.search,
        "folds": options.folds,
        "seed": options.seed,
        "schema_version": SCHEMA_VERSION,
    }
    folder = Path(out) if out else Path("runs") / f"{backbone.path.stem}-{_slug(recordings.name)}"
    held = claim_folder(folder, settings, options.overwrite)
    if held is not None:
        notes.say(f"{folder} holds this very run, finished: nothing is computed again")
        return {**held, "folder": str(folder)}

    with _timed(timings, "extraction_s"):
        extraction = extract_activations(
            backbone,
            preprocessing,
            features,
            recordings,
            folder / "activations",
            options.device,
            notes,
        )
        activations = [read_activations(p, recordings.stimulus_ids) for p in extraction.paths]
    names = [feature.layer.name for feature in features]
    with _timed(timings, "fitting_s"):
        fits = fit_folds(activations, names, recordings, folds, space, normalise, options.seed)
    for note in notes_on_layers(fits.n_directions):
        notes.say(note)
    with _timed(timings, "scoring_s"):
        regions = score_regions(recordings, fits, folds, options.seed)
    nrp_error = float(np.mean([region["nrp_error"]["value"] for region in regions.values()]))
    with _timed(timings, "export_s"):
        difference = _export(
            folder,
            backbone,
            preprocessing,
            features,
            activations,
            recordings,
            folds[0],
            fits,
            regions,
        )
        write_predictions(folder / "predictions.parquet", recordings, folds, fits.predictions)
    result = {
        "schema_version": SCHEMA_VERSION,
        "fingerprint": run_fingerprint(settings),
        "nrp_error": nrp_error,
        "units": "z" if normalise == "zscore" else recordings.units,
        "regions": regions,
        "model": {
            "file": backbone.path.name,
            "sha256": backbone.sha256,
            "n_parameters": backbone.n_parameters,
            "source": backbone.source,
            "preprocessing": preprocessing.to_json(),
            "layers": [
                {
                    "name": feature.layer.name,
                    "shape": list(feature.layer.shape or ()),
                    "reduction": str(feature.reduction),
                    "n_features": feature.n_features,
                }
                for feature in features
            ],
        },
        "recordings": {
            "name": recordings.name,
            "simulated": recordings.simulated,
            "n_stimuli": recordings.n_stimuli,
            "n_sites": recordings.n_sites,
            "units": recordings.units,
            "missing_share": float(np.isnan(recordings.averages).mean()),
            "fingerprint": recordings.fingerprint,
            "citation": recordings.citation,
        },
        "protocol": {
            "name": "k-fold",
            "folds": options.folds,
            "stratified_on": STRATIFY_ON if stratified else None,
            "validation_share": VALIDATION_SHARE,
            "normalise": normalise,
            "seed": options.seed,
            "interval": "95 %, bootstrap over images and sites, 2000 resamples",
            "exported_fold": 0,
        },
        "search": {"preset": options.search, "trials": fits.trials, "best": fits.best},
        "export": {"max_difference_sd": difference},
        "provider": extraction.provider,
        "notes": notes.said,
        "versions": {
            "python": platform.python_version(),
            "onnxruntime": ort.__version__,
            **{name: version(name) for name in _PACKAGES},
        },
        "timings": timings,
    }
    write_json(folder / RESULT_FILE, result)
    return {**result, "folder": str(folder)}


@contextmanager
def _timed(timings: dict[str, float], name: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    timings[name] = round(time.perf_counter() - start, 3)


def _slug(name: str) -> str:
    return "".join(char if char.isalnum() or char in "._-" else "-" for char in name)


def _preprocessing(backbone: Backbone, choice: str | None, notes: Notes) -> Preprocessing:
    where: object = "--preprocess"
    if choice is not None:
        spec = read_preprocessing(choice)
    elif backbone.preprocessing is not None:
        spec, where = backbone.preprocessing, f"{backbone.path}, metadata"
    else:
        spec = PRESETS["imagenet"]
        notes.say(
            "the model does not say how its images are preprocessed: taking imagenet (RGB 0-1, "
            "ImageNet mean and std); set it with --preprocess imagenet|tf|caffe|raw|FILE.json"
        )
    given = backbone.input
    spec = spec.for_input(given.height, given.width, given.layout, given.dtype)
    check_fits(spec, given.height, given.width, given.layout, given.dtype, where)
    return spec


def _features(
    backbone: Backbone, options: ScoreOptions, n_images: int, notes: Notes
) -> list[Feature]:
    layers = with_known_shapes(backbone, select_layers(backbone, options.layers))
    if options.layers == "auto":
        notes.say(f"--layers auto: {', '.join(layer.name for layer in layers)}")
    asked = options.reduce != "auto"
    reduction = read_reduction(options.reduce) if asked else auto_reduction(layers, n_images)
    features = [Feature(layer, reduction_for(layer, reduction, asked=asked)) for layer in layers]
    total = sum(feature.n_features for feature in features) * 4
    notes.say(
        f"--reduce {options.reduce}: {reduction}, {total:,} bytes an image, "
        f"{total * n_images / 2**20:,.0f} MiB for {n_images:,} images"
    )
    return features


def _normalise(choice: str | None, recordings: Recordings, notes: Notes) -> str:
    if choice is None:
        choice = "none" if recordings.normalised else "zscore"
        why = "are" if recordings.normalised else "are not"
        notes.say(f"--normalise {choice}: the recorded rates {why} normalised already")
    if choice not in ("zscore", "none"):
        raise OptionError(
            "no such normalisation",
            where="--normalise",
            expected="zscore or none",
            found=repr(choice),
        )
    return choice


def _export(
    folder: Path,
    backbone: Backbone,
    preprocessing: Preprocessing,
    features: list[Feature],
    activations: list[np.ndarray],
    recordings: Recordings,
    fold: Fold,
    fits: Fits,
    regions: dict[str, Any],
) -> float:
    """Write head.onnx and predictor.onnx of a fold; how far the head is from what was scored."""
    used = fits.first.head.config.layers
    chosen, inputs = [features[i] for i in used], [activations[i] for i in used]
    head = fold_head(fits.first.head, fits.first.bases, inputs, fits.first.offset, fits.first.scale)
    facts = {
        SITES_KEY: json.dumps(recordings.site_ids),
        UNITS_KEY: recordings.units,
        SCORES_KEY: {
            name: {"nrp_error": region["nrp_error"], "recordings": recordings.name}
            for name, region in regions.items()
        },
        "nrp_onnx.regions": json.dumps(recordings.regions),
        "nrp_onnx.simulated": json.dumps(recordings.simulated),
    }
    proto = head_model(head, chosen, facts)
    session = ort.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    names = [feature.layer.name for feature in chosen]
    feed = {name: x[fold.test] for name, x in zip(names, inputs, strict=True)}
    rates = session.run(None, feed)[0]
    deviation = np.nanstd(recordings.averages, axis=0)
    shift = np.abs(rates - fits.predictions["nrp"][fold.test]) / np.where(
        deviation > 0, deviation, 1
    )
    if shift.max() > _EXPORT_TOLERANCE:
        raise ModelError(
            "the exported head does not give the scored rates",
            where=folder / "head.onnx",
            expected=f"at most {_EXPORT_TOLERANCE} standard deviations apart",
            found=f"{shift.max():.2g}",
            fix="Please report this.",
        )
    save_model(proto, folder / "head.onnx")
    graph = build_feature_graph(backbone, preprocessing, chosen)
    save_model(predictor_model(head, graph, facts), folder / "predictor.onnx", backbone.path.parent)
    return float(shift.max())
