"""A score in named steps: plan, extract, fit, measure, export, write.

`run_score` is the walk; each step takes what the steps before it made and gives one dataclass.
"""

import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path

from nrp_onnx.activations.extract import extract_activations
from nrp_onnx.activations.remote import folder_of
from nrp_onnx.backbone.feature_graph import Feature
from nrp_onnx.engine import Engine, LocalEngine
from nrp_onnx.files import safe_name
from nrp_onnx.predictor.channels import SeenLayer
from nrp_onnx.predictor.memory import PrimalSizes, choose_sizes, parse_budget
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
from nrp_onnx.scoring.folds import Fits, fit_folds, notes_on_layers, spans_of
from nrp_onnx.scoring.left_out import without_silent_sites
from nrp_onnx.scoring.metrics.brainscore import (
    brainscore_of_regions,
    choose_splits,
    coordinates_of_layers,
    joined_coordinates,
)
from nrp_onnx.scoring.regions import (
    Measured,
    measure_regions,
    notes_on_intervals,
    notes_on_seeds,
)
from nrp_onnx.scoring.result import (
    ALGORITHM_VERSION,
    SCHEMA_VERSION,
)
from nrp_onnx.scoring.run import FinishedRun
from nrp_onnx.scoring.run_folder import (
    SITES_FILE,
    TRIALS_ALL_FILE,
    TRIALS_FILE,
    only_one_run,
    take_folder,
)
from nrp_onnx.scoring.sites import write_sites
from nrp_onnx.scoring.splits import (
    PAPER_PARTS,
    Fold,
    all_images,
    check_responses,
    held_out_alone,
    note_on_duplicates,
    stratification,
)
from nrp_onnx.scoring.steps import Extracted, Fitted, Inputs, Plan, training_device
from nrp_onnx.scoring.write_run import export, write
from nrp_onnx.threads import one_blas_thread


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
    splitting = choose_splitting(
        options.protocol, options.folds, options.split, inputs.recordings, inputs.notes
    )
    inputs, silent_sites = _without_silent_sites(inputs, splitting)
    plan = make_plan(inputs, splitting)
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


def make_plan(inputs: Inputs, splitting: Splitting) -> Plan:
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
    silent: list[str] = []
    if extraction.skipped:
        recordings = recordings.without_stimuli(extraction.skipped)
        fewer, silent = _without_silent_sites(
            replace(inputs, recordings=recordings), plan.splitting
        )
        recordings = fewer.recordings
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
        silent=silent,
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
                device=training_device(extracted.provider),
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
        return Fitted(fits, joined_coordinates(fits.first.whole), final)
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


def _without_silent_sites(inputs: Inputs, splitting: Splitting) -> tuple[Inputs, list[str]]:
    """The inputs without sites that are silent, and their ids."""
    folds = splitting.folds(inputs.recordings, inputs.options.seed)
    recordings, names = without_silent_sites(inputs.recordings, folds, inputs.notes)
    return replace(inputs, recordings=recordings), names


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
        f"{sizes.bytes / 2**30:.1f} GB at the peak (--memory), and {sizes.disk_bytes / 2**30:.1f} GB of "
        "the run's disk meanwhile"
    )
    return sizes
