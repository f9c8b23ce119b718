"""A backbone and recordings in; NRP-error, held-out predictions and ONNX files out."""

import platform
import shutil
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from nrp_onnx.activations.extract import extract_activations
from nrp_onnx.activations.layer_file import StoredLayer
from nrp_onnx.activations.remote import folder_of
from nrp_onnx.backbone.model import Backbone
from nrp_onnx.engine import Engine
from nrp_onnx.export.exported_fold import check_exported_head, export_fold
from nrp_onnx.export.folded_head import fold_head, used_layers
from nrp_onnx.files import safe_name, write_json
from nrp_onnx.notes import Notes
from nrp_onnx.predictor.search_space import SearchSpace
from nrp_onnx.predictor.trials import TrialRecord
from nrp_onnx.recordings import Recordings
from nrp_onnx.scoring.choices import (
    choose_features,
    choose_folds,
    choose_normalisation,
    choose_preprocessing,
    choose_visual_degrees,
)
from nrp_onnx.scoring.folds import fit_folds, notes_on_layers, spans_of
from nrp_onnx.scoring.metrics.brainscore import brainscore, choose_splits
from nrp_onnx.scoring.regions import add_ceilings, notes_on_seeds, score_regions
from nrp_onnx.scoring.run_folder import (
    PREDICTIONS_FILE,
    RESULT_FILE,
    SITES_FILE,
    TRIALS_FILE,
    claim_folder,
    run_fingerprint,
    write_predictions,
)
from nrp_onnx.scoring.splits import PAPER_PARTS, VALIDATION_SHARE, stratification
from nrp_onnx.threads import one_blas_thread

SCHEMA_VERSION = 1
_PACKAGES = ("nrp-onnx", "numpy", "onnx", "onnx-ir", "torch", "scikit-learn", "ikpls", "pyarrow")


@dataclass(frozen=True)
class ScoreOptions:
    """What a user can choose about a score; the defaults are those of the command line.

    Attributes:
        activations: the folder of the activations, or its URI; None: one in the output folder. Models that are
            scored one after the other can share one: what is the same in the next is not computed
            again, what is not is replaced.
    """

    layers: str = "auto"
    reduce: str = "auto"
    preprocess: str | None = None
    visual_degrees: float | None = None
    regions: tuple[str, ...] = ()
    normalise: str | None = None
    search: str = "default"
    protocol: str = "k-fold"
    folds: int = 5
    seed: int = 0
    seeds: int = 1
    device: str = "auto"
    skip_bad_stimuli: bool = False
    overwrite: bool = False
    report: bool = True
    activations: Path | str | None = None
    engine: str = "local"
    ray_address: str | None = None


def run_score(
    backbone: Backbone,
    space: SearchSpace,
    engine: Engine,
    recordings: Recordings,
    out: str | Path | None,
    options: ScoreOptions,
    notes: Notes,
    timings: dict[str, float],
    keep_model: bool,
) -> dict[str, Any]:
    """Score a backbone; see `nrp_onnx.api.score`.

    Args:
        space: that ``options.search`` names.
        engine: that ``options.engine`` names.
        timings: seconds that were spent already, by what they were spent on.
        keep_model: leave a copy of the model in the output folder.
    """
    if options.regions:
        recordings = recordings.select_regions(list(options.regions))
    preprocessing = choose_preprocessing(backbone, options.preprocess, notes)
    preprocessing = choose_visual_degrees(options.visual_degrees, recordings, preprocessing, notes)
    features = choose_features(
        backbone, options.layers, options.reduce, recordings.n_stimuli, notes
    )
    normalise = choose_normalisation(options.normalise, recordings, notes)
    folds = choose_folds(options.protocol, recordings, options.folds, options.seed)
    parts = options.folds if options.protocol == "k-fold" else PAPER_PARTS
    stratified = stratification(recordings, parts) is not None
    if not stratified:
        label = recordings.stratification_label
        notes.say(f"the folds are not stratified: no {label} labels, or too few of a class")
    settings = {
        "model": backbone.sha256,
        "recordings": recordings.fingerprint,
        "layers": [feature.layer.name for feature in features],
        "reduce": [str(feature.reduction) for feature in features],
        "preprocess": preprocessing.to_json(),
        "normalise": normalise,
        "search": space.to_json(),
        "protocol": options.protocol,
        "folds": len(folds),
        "seed": options.seed,
        "seeds": options.seeds,
        "skip_bad_stimuli": options.skip_bad_stimuli,
        "schema_version": SCHEMA_VERSION,
    }
    folder = (
        Path(out) if out else Path("runs") / f"{backbone.path.stem}-{safe_name(recordings.name)}"
    )
    held = claim_folder(folder, settings, options.overwrite)
    if held is not None:
        notes.say(f"{folder} holds this very run, finished: nothing is computed again")
        return {**held, "folder": str(folder)}
    if keep_model:
        shutil.copyfile(backbone.path, folder / "backbone.onnx")

    with _timed(timings, "extraction_s"):
        extraction = extract_activations(
            backbone,
            preprocessing,
            features,
            recordings,
            folder_of(options.activations or folder / "activations"),
            options.device,
            notes,
            skip_bad_stimuli=options.skip_bad_stimuli,
            engine=engine,
        )
    features = extraction.features
    if extraction.skipped:
        recordings = recordings.without_stimuli(extraction.skipped)
        folds = choose_folds(options.protocol, recordings, options.folds, options.seed)
    activations = [StoredLayer(path, recordings.stimulus_ids) for path in extraction.paths]
    names = [feature.layer.name for feature in features]
    with _timed(timings, "fitting_s"):
        record = TrialRecord(folder / TRIALS_FILE, names)
        spans = spans_of(activations, engine, folder)
        fits = fit_folds(
            *(spans, names, recordings, folds, space, normalise, options.seed, record),
            n_seeds=options.seeds,
            engine=engine,
        )
    for note in notes_on_layers(fits.n_directions):
        notes.say(note)
    differing = [x for x, n in zip(spans, fits.n_directions.values(), strict=True) if n]
    splits = choose_splits(recordings, notes)
    # Scoring and export keep one core busy at most.
    with one_blas_thread(), ThreadPoolExecutor(1) as beside:
        of_brainscore = beside.submit(brainscore, differing, recordings, splits)
        with _timed(timings, "scoring_s"):
            regions = score_regions(recordings, fits, folds, options.seed)
            add_ceilings(regions, recordings, fits, folds, options.seed, folder / SITES_FILE)
        for note in notes_on_seeds(regions):
            notes.say(note)
        nrp_error = float(np.mean([region["nrp_error"]["value"] for region in regions.values()]))
        units = "z" if normalise == "zscore" else recordings.units
        with _timed(timings, "export_s"):
            first = fits.first
            used = used_layers(first.predictor, first.bases)
            chosen, inputs = [features[i] for i in used], [activations[i] for i in used]
            export_fold(
                folder,
                fold_head(first.predictor, first.bases, activations, first.offset, first.scale),
                backbone,
                preprocessing,
                chosen,
                recordings,
                {name: region["nrp_error"] for name, region in regions.items()},
                fits.scales[folds[0].test[0]],
                units,
            )
            difference = check_exported_head(
                folder,
                chosen,
                inputs,
                folds[0].test,
                fits.predictions["nrp"][folds[0].test],
                np.nanstd(recordings.averages, axis=0),
            )
            write_predictions(folder / PREDICTIONS_FILE, recordings, folds, fits.predictions)
        with _timed(timings, "brainscore_s"):
            for name, found in of_brainscore.result().items():
                regions[name]["brainscore"] = found
    result = {
        "schema_version": SCHEMA_VERSION,
        "fingerprint": run_fingerprint(settings),
        "nrp_error": nrp_error,
        "units": units,
        "regions": regions,
        "model": {
            "file": backbone.path.name,
            "sha256": backbone.sha256,
            "n_parameters": backbone.n_parameters,
            "source": backbone.source,
            "preprocessing": preprocessing.to_json(),
            "visual_degrees": recordings.visual_degrees
            and recordings.visual_degrees * preprocessing.visual_degrees_ratio,
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
            "skipped_stimuli": extraction.skipped,
            "n_sites": recordings.n_sites,
            "units": recordings.units,
            "visual_degrees": recordings.visual_degrees,
            "missing_share": float(np.isnan(recordings.averages).mean()),
            "fingerprint": recordings.fingerprint,
            "citation": recordings.citation,
        },
        "protocol": {
            "name": options.protocol,
            "folds": len(folds),
            "stratified_on": recordings.stratification_label if stratified else None,
            "validation_share": VALIDATION_SHARE,
            "normalise": normalise,
            "seed": options.seed,
            "seeds": options.seeds,
            "interval": "95 %, bootstrap over images and sites, 2000 resamples",
            "exported_fold": 0,
        },
        "search": {
            "preset": options.search,
            "space": space.to_json(),
            "trials": {"file": TRIALS_FILE, "count": fits.n_trials},
            "best": fits.best,
        },
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
