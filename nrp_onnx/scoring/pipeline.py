"""A score in named steps: plan, extract, fit, measure, export, write.

`run_score` is the walk; each step takes what the steps before it made and gives one dataclass.
"""

import platform
import shutil
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from nrp_onnx.activations.extract import extract_activations
from nrp_onnx.activations.layer_file import StoredLayer
from nrp_onnx.activations.remote import folder_of
from nrp_onnx.backbone.feature_graph import Feature
from nrp_onnx.backbone.model import Backbone
from nrp_onnx.backbone.preprocessing import Preprocessing
from nrp_onnx.decoding import RULES
from nrp_onnx.engine import Engine
from nrp_onnx.export.exported_fold import check_exported_head, export_fold
from nrp_onnx.export.folded_head import fold_head, used_layers
from nrp_onnx.files import safe_name, sha256_of_json, write_json
from nrp_onnx.notes import Notes
from nrp_onnx.predictor.channels import SeenLayer
from nrp_onnx.predictor.image_products import LayerSpan
from nrp_onnx.predictor.search_space import SearchSpace
from nrp_onnx.predictor.trials import TrialRecord
from nrp_onnx.recordings import Recordings, notes_on_noise
from nrp_onnx.scoring.choices import (
    choose_features,
    choose_folds,
    choose_normalisation,
    choose_preprocessing,
    choose_visual_degrees,
)
from nrp_onnx.scoring.folds import Fits, fit_folds, notes_on_layers, spans_of
from nrp_onnx.scoring.left_out import without_silent_sites
from nrp_onnx.scoring.metrics.brainscore import brainscore_of_regions, choose_splits
from nrp_onnx.scoring.options import ScoreOptions
from nrp_onnx.scoring.regions import (
    Measured,
    interval_words,
    measure_regions,
    notes_on_intervals,
    notes_on_seeds,
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
    Trials,
)
from nrp_onnx.scoring.run import FinishedRun
from nrp_onnx.scoring.run_folder import (
    PREDICTIONS_FILE,
    RESULT_FILE,
    SITES_FILE,
    TRIALS_FILE,
    only_one_run,
    take_folder,
    write_predictions,
)
from nrp_onnx.scoring.sites import write_sites
from nrp_onnx.scoring.splits import (
    PAPER_PARTS,
    VALIDATION_SHARE,
    Fold,
    check_responses,
    stratification,
)
from nrp_onnx.threads import one_blas_thread

_PACKAGES = ("nrp-onnx", "numpy", "onnx", "onnx-ir", "torch", "scikit-learn", "ikpls", "pyarrow")


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


@dataclass(frozen=True)
class Fitted:
    """The fits of all folds; ``differing`` are the layers in which the images differ."""

    fits: Fits
    differing: list[LayerSpan]


def run_score(inputs: Inputs, out: str | Path | None) -> FinishedRun:
    """Score a backbone: six steps, each a function of this module.

    Args:
        out: the output folder; None: one under ``runs``, from the names of model and recordings.

    Raises:
        NrpOnnxError: for anything that is wrong with what was given.
    """
    options = inputs.options
    if options.regions:
        recordings = inputs.recordings.select_regions(list(options.regions))
        inputs = replace(inputs, recordings=recordings)
    inputs, silent_sites = _without_silent_sites(inputs)
    plan = make_plan(inputs)
    name = f"{inputs.backbone.path.stem}-{safe_name(inputs.recordings.name)}"
    folder = Path(out) if out else Path("runs") / name
    with only_one_run(folder):
        held = take_folder(folder, plan.settings, options.overwrite)
        if held is not None:
            inputs.notes.say(f"{folder} holds this very run, finished: nothing is computed again")
            return FinishedRun(folder, held)
        if inputs.keep_model:
            shutil.copyfile(inputs.backbone.path, folder / "backbone.onnx")
        extracted = extract(inputs, plan, folder)
        extracted = replace(extracted, silent=[*silent_sites, *extracted.silent])
        fitted = fit(inputs, plan, extracted, folder)
        splits = choose_splits(extracted.recordings, inputs.notes)
        # Measuring and export keep one core busy; Brain-Score's metric takes the other.
        with one_blas_thread(), ThreadPoolExecutor(1) as beside:
            of_brainscore = beside.submit(
                brainscore_of_regions, fitted.differing, extracted.recordings, splits
            )
            measured = measure(inputs, extracted, fitted, folder)
            difference = export(inputs, plan, extracted, fitted, measured, folder)
            with inputs.timed("brainscore_s"):
                found = of_brainscore.result()
        return write(inputs, plan, extracted, fitted, measured, found, difference, folder)


def make_plan(inputs: Inputs) -> Plan:
    """Step 1: make and say every choice that the user left open.

    Raises:
        OptionError: for a choice that does not exist or does not fit.
    """
    backbone, recordings = inputs.backbone, inputs.recordings
    options, notes = inputs.options, inputs.notes
    preprocessing = choose_preprocessing(backbone, options.preprocess, notes)
    preprocessing = choose_visual_degrees(options.visual_degrees, recordings, preprocessing, notes)
    features = choose_features(
        backbone, options.layers, options.reduce, recordings.n_stimuli, notes
    )
    normalise = choose_normalisation(options.normalise, recordings, notes)
    folds, stratified_on = _folds(inputs, recordings)
    settings = {
        "model": backbone.sha256,
        "recordings": recordings.fingerprint,
        "layers": [feature.layer.name for feature in features],
        "reduce": [str(feature.reduction) for feature in features],
        "preprocess": preprocessing.to_json(),
        "normalise": normalise,
        "search": inputs.space.to_json(),
        "protocol": options.protocol,
        "folds": len(folds),
        "seed": options.seed,
        "seeds": options.seeds,
        "skip_bad_stimuli": options.skip_bad_stimuli,
        "schema_version": SCHEMA_VERSION,
        "algorithm_version": ALGORITHM_VERSION,
    }
    return Plan(preprocessing, features, normalise, folds, stratified_on, settings)


def extract(inputs: Inputs, plan: Plan, folder: Path) -> Extracted:
    """Step 2: compute the activations of all stimuli, unless they are there.

    Raises:
        ModelError, DeviceError, RecordingsError: if the model, the device or an image cannot be used.
        OutputError: if the folder of activations is in use or cannot hold them.
    """
    recordings, options = inputs.recordings, inputs.options
    with inputs.timed("extraction_s"):
        extraction = extract_activations(
            inputs.backbone,
            plan.preprocessing,
            plan.features,
            recordings,
            folder_of(options.activations or folder / "activations"),
            options.device,
            inputs.notes,
            skip_bad_stimuli=options.skip_bad_stimuli,
            # Those in the output folder are this run's own.
            overwrite=options.overwrite
            or options.replace_activations
            or options.activations is None,
            engine=inputs.engine,
        )
    folds, stratified_on = plan.folds, plan.stratified_on
    silent: list[str] = []
    if extraction.skipped:
        recordings = recordings.without_stimuli(extraction.skipped)
        fewer, silent = _without_silent_sites(replace(inputs, recordings=recordings))
        recordings = fewer.recordings
        folds, stratified_on = _folds(inputs, recordings)
    activations = extraction.layers(recordings.stimulus_ids)
    return Extracted(
        recordings=recordings,
        folds=folds,
        stratified_on=stratified_on,
        features=list(extraction.features),
        activations=activations,
        skipped=list(extraction.skipped),
        silent=silent,
        provider=extraction.provider,
    )


def fit(inputs: Inputs, plan: Plan, extracted: Extracted, folder: Path) -> Fitted:
    """Step 3: fit every predictor on each training fold and predict its held-out images."""
    names = [feature.layer.name for feature in extracted.features]
    with inputs.timed("fitting_s"):
        record = TrialRecord(folder / TRIALS_FILE, names)
        spans = spans_of(extracted.activations, inputs.engine, folder)
        fits = fit_folds(
            spans,
            names,
            extracted.recordings,
            extracted.folds,
            inputs.space,
            plan.normalise,
            inputs.options.seed,
            record,
            n_seeds=inputs.options.seeds,
            engine=inputs.engine,
            seen=[
                SeenLayer(layer, feature.grid)
                for layer, feature in zip(extracted.activations, extracted.features, strict=True)
            ],
        )
    if inputs.space.masks and not any(feature.grid for feature in extracted.features):
        inputs.notes.say(
            "no layer keeps places in the image (a vector, or pooled to one): heads are dense, as in "
            "the paper, and there is no masked ridge"
        )
    if inputs.space.calibrate:
        rooted = sum(bool(best["square_roots"]) for best in fits.best)
        inputs.notes.say(
            f"square roots of the rates are predicted, and turned back, in {rooted} of "
            f"{len(fits.best)} folds: where no training response is negative"
        )
    for note in notes_on_layers(fits.n_directions):
        inputs.notes.say(note)
    differing = [span for span, n in zip(spans, fits.n_directions.values(), strict=True) if n]
    return Fitted(fits, differing)


def measure(inputs: Inputs, extracted: Extracted, fitted: Fitted, folder: Path) -> Measured:
    """Step 4: the numbers of each region and site, from the held-out predictions."""
    recordings, folds, seed = extracted.recordings, extracted.folds, inputs.options.seed
    with inputs.timed("scoring_s"):
        measured = measure_regions(recordings, fitted.fits, folds, seed)
        write_sites(folder / SITES_FILE, recordings, measured.sites)
    for note in (
        *notes_on_seeds(measured.regions),
        *notes_on_noise(recordings),
        *notes_on_intervals(recordings),
    ):
        inputs.notes.say(note)
    return measured


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
        How far the exported head is from the scored rates, in standard deviations of each site.

    Raises:
        ModelError: if it is too far.
    """
    recordings, fits, test = extracted.recordings, fitted.fits, extracted.folds[0].test
    with inputs.timed("export_s"):
        first = fits.first
        used = used_layers(first.predictor, first.bases)
        features = [extracted.features[place] for place in used]
        export_fold(
            folder,
            fold_head(
                first.predictor,
                first.bases,
                first.channels,
                extracted.activations,
                first.offset,
                first.scale,
            ),
            inputs.backbone,
            plan.preprocessing,
            features,
            recordings,
            {name: asdict(region.nrp_error) for name, region in measured.regions.items()},
            fits.scales[test[0]],
            _units(plan, recordings),
        )
        difference = check_exported_head(
            folder,
            features,
            [extracted.activations[place] for place in used],
            test,
            first.rates,
            np.nanstd(recordings.averages, axis=0),
        )
        write_predictions(
            folder / PREDICTIONS_FILE,
            recordings,
            extracted.folds,
            fits.predictions,
            fits.headline,
            fits.predictions_by_seed,
        )
    return difference


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
        protocol=Protocol(
            name=options.protocol,
            folds=len(extracted.folds),
            stratified_on=extracted.stratified_on,
            validation_share=VALIDATION_SHARE,
            normalise=plan.normalise,
            seed=options.seed,
            seeds=options.seeds,
            interval=interval_words(recordings, options.seeds),
            exported_fold=0,
        ),
        search=SearchFacts(
            preset=options.search,
            space=inputs.space.to_json(),
            trials=Trials(TRIALS_FILE, fits.n_trials),
            best=fits.best,
        ),
        export=ExportFacts(difference),
        provider=extracted.provider,
        notes=inputs.notes.said,
        versions={
            "python": platform.python_version(),
            "onnxruntime": ort.__version__,
            **{name: version(name) for name in _PACKAGES},
        },
        timings=inputs.timings,
    )
    write_json(folder / RESULT_FILE, result.to_json())
    return FinishedRun(folder, result)


def _without_silent_sites(inputs: Inputs) -> tuple[Inputs, list[str]]:
    """The inputs without sites that are silent, and their ids."""
    options, recordings = inputs.options, inputs.recordings
    folds = choose_folds(options.protocol, recordings, options.folds, options.seed)
    recordings, names = without_silent_sites(recordings, folds, inputs.notes)
    return replace(inputs, recordings=recordings), names


def _folds(inputs: Inputs, recordings: Recordings) -> tuple[list[Fold], str | None]:
    """The folds, and the label that they are stratified on; None is said."""
    options = inputs.options
    folds = choose_folds(options.protocol, recordings, options.folds, options.seed)
    check_responses(recordings, folds, inputs.notes)
    parts = options.folds if options.protocol == "k-fold" else PAPER_PARTS
    label = recordings.stratification_label
    if stratification(recordings, parts) is not None:
        return folds, label
    inputs.notes.say(f"the folds are not stratified: no {label} labels, or too few of a class")
    return folds, None


def _units(plan: Plan, recordings: Recordings) -> str:
    return "z" if plan.normalise == "zscore" else recordings.units
