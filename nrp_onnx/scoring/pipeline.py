"""A score in named steps: plan, extract, fit, measure, export, write.

`run_score` is the walk; each step takes what the steps before it made and gives one dataclass.
"""

import platform
import shutil
import time
from collections.abc import Iterator, Sequence
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
from nrp_onnx.engine import Engine, LocalEngine
from nrp_onnx.export.exported_fold import TrainedOn, check_exported_head, export_fold
from nrp_onnx.export.folded_head import fold_head, used_layers
from nrp_onnx.files import safe_name, sha256_of_json, write_json
from nrp_onnx.notes import Notes
from nrp_onnx.predictor.channels import SeenLayer
from nrp_onnx.predictor.memory import PrimalSizes, choose_sizes, parse_budget
from nrp_onnx.predictor.search_space import SearchSpace
from nrp_onnx.predictor.trials import TrialRecord
from nrp_onnx.recordings import Recordings, notes_on_noise
from nrp_onnx.scoring.choices import (
    Splitting,
    choose_features,
    choose_normalisation,
    choose_preprocessing,
    choose_splitting,
    choose_visual_degrees,
)
from nrp_onnx.scoring.fold import FittedFold
from nrp_onnx.scoring.folds import Fits, fit_folds, notes_on_layers, spans_of
from nrp_onnx.scoring.metrics.brainscore import (
    brainscore_of_regions,
    choose_splits,
    coordinates_of_layers,
    joined_coordinates,
)
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
    SplitFacts,
    Trials,
)
from nrp_onnx.scoring.run import FinishedRun
from nrp_onnx.scoring.run_folder import (
    PREDICTIONS_FILE,
    RESULT_FILE,
    SITES_FILE,
    TRIALS_ALL_FILE,
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
    all_images,
    check_responses,
    held_out_alone,
    note_on_duplicates,
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
        provider: ONNX Runtime's execution provider.
    """

    recordings: Recordings
    folds: list[Fold]
    stratified_on: str | None
    features: list[Feature]
    activations: list[StoredLayer]
    skipped: list[str]
    provider: str


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
        fitted = fit(inputs, plan, extracted, folder)
        first = extracted.folds[0]
        fixed = first if first.is_fixed else None
        splits = choose_splits(extracted.recordings, inputs.notes, fixed=fixed)
        # Measuring and export keep one core busy; Brain-Score's metric takes the other.
        with one_blas_thread(), ThreadPoolExecutor(1) as beside:
            of_brainscore = beside.submit(
                brainscore_of_regions, fitted.coordinates, extracted.recordings, splits
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
    splitting = choose_splitting(options.protocol, options.folds, options.split, recordings, notes)
    folds, stratified_on = _folds(inputs, splitting, recordings)
    primal = _choose_sizes(inputs, features)
    settings = {
        "model": backbone.sha256,
        "recordings": recordings.fingerprint,
        "layers": [feature.layer.name for feature in features],
        "reduce": [str(feature.reduction) for feature in features],
        "preprocess": preprocessing.to_json(),
        "normalise": normalise,
        "search": inputs.space.to_json(),
        "protocol": splitting.protocol,
        "folds": len(folds),
        **({"split": splitting.split} if splitting.split else {}),
        **({"primal": asdict(primal)} if primal else {}),
        **({"all_images": True} if options.all_images else {}),
        "seed": options.seed,
        "seeds": options.seeds,
        "skip_bad_stimuli": options.skip_bad_stimuli,
        "schema_version": SCHEMA_VERSION,
        "algorithm_version": ALGORITHM_VERSION,
    }
    return Plan(
        preprocessing, features, normalise, primal, splitting, folds, stratified_on, settings
    )


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
    if extraction.skipped:
        recordings = recordings.without_stimuli(extraction.skipped)
        folds, stratified_on = _folds(inputs, plan.splitting, recordings)
    activations = extraction.layers(recordings.stimulus_ids)
    if folds[0].is_fixed:
        note = note_on_duplicates(activations, folds[0], recordings.stimulus_ids)
        if note:
            inputs.notes.say(note)
    return Extracted(
        recordings=recordings,
        folds=folds,
        stratified_on=stratified_on,
        features=list(extraction.features),
        activations=activations,
        skipped=list(extraction.skipped),
        provider=extraction.provider,
    )


def fit(inputs: Inputs, plan: Plan, extracted: Extracted, folder: Path) -> Fitted:
    """Step 3: fit every predictor on each training fold and predict its held-out images."""
    names = [feature.layer.name for feature in extracted.features]
    with inputs.timed("fitting_s"):
        spans = []
        if plan.primal is None:
            spans = spans_of(extracted.activations, inputs.engine, folder)

        def fits_of(folds: list[Fold], record: Path, n_seeds: int, engine: Engine) -> Fits:
            return fit_folds(
                spans,
                names,
                extracted.recordings,
                folds,
                inputs.space,
                plan.normalise,
                inputs.options.seed,
                TrialRecord(record, names),
                n_seeds=n_seeds,
                engine=engine,
                seen=[
                    SeenLayer(layer, feature.grid)
                    for layer, feature in zip(
                        extracted.activations, extracted.features, strict=True
                    )
                ],
                primal=plan.primal,
            )

        seeds = inputs.options.seeds
        fits = fits_of(extracted.folds, folder / TRIALS_FILE, seeds, inputs.engine)
        final = None
        if inputs.options.all_images:
            whole = [all_images(extracted.folds[0], inputs.options.seed)]
            final = fits_of(whole, folder / TRIALS_ALL_FILE, 1, LocalEngine()).first
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
    if plan.primal is not None:
        return Fitted(fits, joined_coordinates(fits.first.bases), final)
    differing = [span for span, n in zip(spans, fits.n_directions.values(), strict=True) if n]
    n_stimuli = extracted.recordings.n_stimuli
    return Fitted(fits, coordinates_of_layers(differing, n_stimuli), final)


def measure(inputs: Inputs, extracted: Extracted, fitted: Fitted, folder: Path) -> Measured:
    """Step 4: the numbers of each region and site, from the held-out predictions."""
    recordings, folds, seed = extracted.recordings, extracted.folds, inputs.options.seed
    with inputs.timed("scoring_s"):
        held_out, held_out_folds = held_out_alone(recordings, folds, fitted.fits.kept)
        measured = measure_regions(held_out, fitted.fits, held_out_folds, seed)
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
                {name: asdict(region.nrp_error) for name, region in measured.regions.items()},
                found.scale if plan.normalise == "zscore" else np.ones(recordings.n_sites),
                _units(plan, recordings),
                fits.headline,
                TrainedOn(
                    words,
                    len(seen),
                    [x for place, x in enumerate(recordings.stimulus_ids) if place not in seen],
                ),
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
            n_sites=recordings.n_sites,
            units=recordings.units,
            visual_degrees=shown,
            missing_share=float(np.isnan(recordings.averages).mean()),
            fingerprint=recordings.fingerprint,
            citation=recordings.citation,
        ),
        protocol=Protocol(
            name=plan.splitting.protocol,
            split=_split_facts(plan.splitting.split, extracted.folds[0]),
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


def _folds(
    inputs: Inputs, splitting: Splitting, recordings: Recordings
) -> tuple[list[Fold], str | None]:
    """The folds, and the label that they are stratified on; None is said."""
    folds = splitting.folds(recordings, inputs.options.seed)
    check_responses(recordings, folds, inputs.notes)
    if splitting.split is not None:
        return folds, None
    parts = splitting.n_folds if splitting.protocol == "k-fold" else PAPER_PARTS
    label = recordings.stratification_label
    if stratification(recordings, parts) is not None:
        return folds, label
    inputs.notes.say(f"the folds are not stratified: no {label} labels, or too few of a class")
    return folds, None


def _choose_sizes(inputs: Inputs, features: Sequence[Feature]) -> PrimalSizes | None:
    """Whether fits are on images (None) or on features, and on how many; it is said.

    Raises:
        OptionError: if nothing fits into the memory that they may take.
    """
    recordings, space = inputs.recordings, inputs.space
    budget = parse_budget(inputs.options.memory)
    sees_places = (space.masks or space.masked) and any(feature.grid for feature in features)
    grids = [feature.grid for feature in features] if sees_places else []
    sizes = choose_sizes(
        budget,
        recordings.n_stimuli,
        recordings.n_sites,
        [feature.n_features for feature in features],
        [grid.n_positions if grid else 4 for grid in grids],
    )
    if sizes is None:
        return None
    channels = f", {min(sizes.channels, space.channels)} channels" if sees_places else ""
    inputs.notes.say(
        f"{recordings.n_stimuli:,} images are fitted on features: {sizes.directions:,} leading "
        f"directions a layer{channels}, {sizes.landmarks:,} landmarks for kernels; about "
        f"{sizes.bytes / 2**30:.1f} GB at the peak (--memory)"
    )
    return sizes


def _split_facts(name: str | None, fold: Fold) -> SplitFacts | None:
    if name is None:
        return None
    return SplitFacts(name, len(fold.train), len(fold.test), len(fold.ood))


def _units(plan: Plan, recordings: Recordings) -> str:
    return "z" if plan.normalise == "zscore" else recordings.units
