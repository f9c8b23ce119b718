"""The last steps of a score: exported models, held-out predictions, result.json."""

import platform
from collections.abc import Sequence
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
import onnxruntime as ort

from nrp_onnx.backbone.feature_graph import Feature
from nrp_onnx.decoding import RULES
from nrp_onnx.export.card import Card, OfModel, OfRecordings, TrainedOn
from nrp_onnx.export.exported_fold import check_exported_head, export_fold
from nrp_onnx.export.folded_head import fold_head, used_layers
from nrp_onnx.files import sha256_of_json, write_json
from nrp_onnx.recordings import Recordings
from nrp_onnx.scoring.folds import Fits
from nrp_onnx.scoring.regions import (
    Measured,
    interval_words,
)
from nrp_onnx.scoring.result import (
    ALGORITHM_VERSION,
    SCHEMA_VERSION,
    BrainScore,
    ExportFacts,
    LayerFacts,
    ModelFacts,
    Protocol,
    RecordingsFacts,
    Result,
    SearchFacts,
    SplitFacts,
    Trials,
)
from nrp_onnx.scoring.run import FinishedRun
from nrp_onnx.scoring.run_folder import (
    PREDICTIONS_FILE,
    RESULT_FILE,
    TRIALS_FILE,
    write_predictions,
)
from nrp_onnx.scoring.splits import (
    VALIDATION_SHARE,
    Fold,
    all_images,
    held_out_alone,
)
from nrp_onnx.scoring.steps import Extracted, Fitted, Inputs, Plan, training_device

_PACKAGES = ("nrp-onnx", "numpy", "onnx", "onnx-ir", "torch", "scikit-learn", "ikpls", "pyarrow")


def export(
    inputs: Inputs,
    plan: Plan,
    extracted: Extracted,
    fitted: Fitted,
    measured: Measured,
    folder: Path,
) -> float:
    """Step 5: write the predictor of the first fold as ONNX, and the held-out predictions.

    Returns:
        How far exported heads are from the fitted rates, in standard deviations of each site.

    Raises:
        ModelError: if that is too far.
    """
    recordings, fits, fold = extracted.recordings, fitted.fits, extracted.folds[0]
    with inputs.timed("export_s"):
        what = "the training images of fold 0"
        if plan.splitting.split is not None:
            what = f"the training images of the split {plan.splitting.split}"
        chosen = [(fits.first, fold, what, False)]
        if fitted.final is not None:
            whole = all_images(fold, inputs.options.seed)
            chosen.append((fitted.final, whole, "all images", True))
        differences = []
        for found, of_fold, words, is_final in chosen:
            used = used_layers(found.predictor, found.bases)
            features = [extracted.features[place] for place in used]
            seen = set(of_fold.train.tolist())
            trained_on = TrainedOn(
                words,
                len(seen),
                [x for place, x in enumerate(recordings.stimulus_ids) if place not in seen],
            )
            export_fold(
                folder,
                fold_head(
                    found.predictor,
                    found.bases,
                    found.channels,
                    extracted.activations,
                    found.offset,
                    found.scale,
                ),
                inputs.backbone,
                plan.preprocessing,
                features,
                recordings,
                _card(inputs, plan, extracted, fits, measured, features, trained_on),
                found.scale if plan.normalise == "zscore" else np.ones(recordings.n_sites),
                is_final,
            )
            differences.append(
                check_exported_head(
                    folder,
                    features,
                    [extracted.activations[place] for place in used],
                    of_fold.new,
                    found.rates,
                    np.nanstd(recordings.averages, axis=0),
                    is_final,
                )
            )
        write_predictions(
            folder / PREDICTIONS_FILE,
            *held_out_alone(recordings, extracted.folds, fits.kept),
            fits.predictions,
            fits.scales,
            fits.headline,
            fits.predictions_by_seed,
        )
    return max(differences)


def write(
    inputs: Inputs,
    plan: Plan,
    extracted: Extracted,
    fitted: Fitted,
    measured: Measured,
    of_brainscore: dict[str, BrainScore],
    difference: float,
    folder: Path,
) -> FinishedRun:
    """Step 6: put everything together as result.json, which makes the run finished."""
    backbone, options = inputs.backbone, inputs.options
    recordings, fits = extracted.recordings, fitted.fits
    regions = {
        name: replace(region, brainscore=of_brainscore[name])
        for name, region in measured.regions.items()
    }
    shown = recordings.visual_degrees
    result = Result(
        schema_version=SCHEMA_VERSION,
        algorithm_version=ALGORITHM_VERSION,
        fingerprint=sha256_of_json(plan.settings),
        nrp_error=float(np.mean([region.nrp_error.value for region in regions.values()])),
        nrp_error_ci95=measured.ci95,
        headline=fits.headline,
        units=_units(plan, recordings),
        regions=regions,
        model=ModelFacts(
            file=backbone.path.name,
            sha256=backbone.sha256,
            n_parameters=backbone.n_parameters,
            source=backbone.source,
            preprocessing=plan.preprocessing.to_json(),
            visual_degrees=shown and shown * plan.preprocessing.visual_degrees_ratio,
            layers=[
                LayerFacts(
                    name=feature.layer.name,
                    shape=list(feature.layer.shape or ()),
                    reduction=str(feature.reduction),
                    n_features=feature.n_features,
                )
                for feature in extracted.features
            ],
        ),
        recordings=RecordingsFacts(
            name=recordings.name,
            simulated=recordings.simulated,
            n_stimuli=recordings.n_stimuli,
            skipped_stimuli=extracted.skipped,
            silent_sites=extracted.silent,
            decoding=RULES,
            n_sites=recordings.n_sites,
            units=recordings.units,
            visual_degrees=shown,
            missing_share=float(np.isnan(recordings.averages).mean()),
            fingerprint=recordings.fingerprint,
            citation=recordings.citation,
        ),
        protocol=_protocol(inputs, plan, extracted),
        search=SearchFacts(
            preset=options.search,
            device=training_device(extracted.provider),
            fits_on="images" if plan.primal is None else "features",
            sizes=None if plan.primal is None else asdict(plan.primal),
            space=inputs.space.to_json(),
            trials=Trials(TRIALS_FILE, fits.n_trials),
            best=fits.best,
        ),
        export=ExportFacts(difference),
        provider=extracted.provider,
        notes=inputs.notes.said,
        versions=_versions(),
        timings=inputs.timings,
    )
    write_json(folder / RESULT_FILE, result.to_json())
    return FinishedRun(folder, result)


def _protocol(inputs: Inputs, plan: Plan, extracted: Extracted) -> Protocol:
    options = inputs.options
    return Protocol(
        name=plan.splitting.protocol,
        split=_split_facts(plan.splitting.split, extracted.folds[0]),
        folds=len(extracted.folds),
        stratified_on=extracted.stratified_on,
        validation_share=VALIDATION_SHARE,
        normalise=plan.normalise,
        seed=options.seed,
        seeds=options.seeds,
        interval=interval_words(extracted.recordings, options.seeds),
        exported_fold=0,
    )


def _card(
    inputs: Inputs,
    plan: Plan,
    extracted: Extracted,
    fits: Fits,
    measured: Measured,
    features: Sequence[Feature],
    trained_on: TrainedOn,
) -> Card:
    """The card of a predictor that reads some of the layers."""
    backbone, recordings = inputs.backbone, extracted.recordings
    return Card(
        predictor=fits.headline,
        simulated=recordings.simulated,
        units=recordings.units,
        sites=list(recordings.site_ids),
        regions=list(recordings.regions),
        scores={
            name: {
                "nrp_error": asdict(region.nrp_error),
                "noise_floor": region.noise_floor,
                "recordings": recordings.name,
            }
            for name, region in measured.regions.items()
        },
        score_units=_units(plan, recordings),
        trained_on=trained_on,
        model=OfModel(backbone.path.name, backbone.sha256, backbone.n_parameters),
        recordings=OfRecordings(
            recordings.name,
            recordings.fingerprint,
            recordings.n_stimuli,
            recordings.citation,
            recordings.licence,
        ),
        protocol=asdict(_protocol(inputs, plan, extracted)),
        layers={feature.layer.name: str(feature.reduction) for feature in features},
        preprocessing=plan.preprocessing.to_json(),
        run=sha256_of_json(plan.settings),
        versions=_versions(),
    )


def _versions() -> dict[str, str]:
    return {
        "python": platform.python_version(),
        "onnxruntime": ort.__version__,
        **{name: version(name) for name in _PACKAGES},
    }


def _split_facts(name: str | None, fold: Fold) -> SplitFacts | None:
    if name is None:
        return None
    return SplitFacts(name, len(fold.train), len(fold.test), len(fold.ood))


def _units(plan: Plan, recordings: Recordings) -> str:
    return "z" if plan.normalise == "zscore" else recordings.units
