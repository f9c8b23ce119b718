"""Model recovery: does the score find the network and layer that the sites were made from?

Sites are simulated that read a known layer of a known backbone. Then every layer of every backbone
is scored on them, alone. A similarity score that means something ranks the true source first; one
that does not will praise whatever has the richest features. (The check is that of Han, Poggio &
Cheung 2023, "System identification of neural systems: if we got it right, would we know?".)
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nrp_onnx.activations.extract import extract_activations
from nrp_onnx.activations.layer_file import StoredLayer, layer_path
from nrp_onnx.backbone.model import load_backbone
from nrp_onnx.errors import OptionError
from nrp_onnx.files import sha256_of_json, write_json
from nrp_onnx.notes import Notes
from nrp_onnx.predictor.image_products import LayerSpan, read_span
from nrp_onnx.predictor.search_file import read_search
from nrp_onnx.predictor.search_space import SearchSpace
from nrp_onnx.predictor.trials import TrialRecord
from nrp_onnx.progress import progress_bar
from nrp_onnx.recordings import Recordings, open_recordings
from nrp_onnx.recordings.simulation.sites import simulate_from_layer
from nrp_onnx.scoring.choices import choose_features, choose_preprocessing
from nrp_onnx.scoring.folds import fit_folds, site_scaling
from nrp_onnx.scoring.splits import Fold, held_out_split
from nrp_onnx.studies.recovery_summary import Population, read_population, summary, write_population

RECOVERY_FILE = "recovery.json"


@dataclass(frozen=True)
class RecoveryOptions:
    """What a user can choose about the study; the defaults are those of the command line."""

    layers: str = "auto"
    reduce: str = "auto"
    preprocess: str | None = None
    populations: int = 10
    sites: int = 60
    search: str = "default"
    seed: int = 0
    device: str = "auto"


@dataclass(frozen=True)
class _Candidate:
    name: str
    layer: StoredLayer
    span: LayerSpan


def study_recovery(
    models: Sequence[Path], recordings: str | Path | None, out: Path, options: RecoveryOptions
) -> dict[str, Any]:
    """Simulate populations, score every layer of every model on each, and see which ranks first.

    The sources take turns. One split holds a fifth of the images out; the noise floor is known, as
    the rates are. A population that was scored before is not scored again.

    Args:
        models: ONNX backbones.
        recordings: whose stimuli are shown; their responses are not used.
        out: the folder of the study.

    Returns:
        The content of recovery.json.

    Raises:
        NrpOnnxError: for anything that is wrong with what was given.
    """
    if len({model.stem for model in models}) < len(models):
        raise OptionError(
            "two models have the same name", where="MODELS", fix="Rename one of the files."
        )
    notes = Notes()
    stimuli = open_recordings(recordings, notes)
    search = read_search(options.search)
    candidates, made_of = [], []
    for model in models:
        found, facts = _candidates(model, stimuli, out, options, notes)
        candidates += found
        made_of.append(facts)
    if len(candidates) < 2:
        raise OptionError(
            "there is nothing to tell apart", where="--layers", expected="two layers or more",
            found=len(candidates),
        )  # fmt: skip
    settings = {
        "models": made_of,
        "stimuli": stimuli.stimuli_fingerprint,
        "search": search.to_json(),
        "sites": options.sites,
        "seed": options.seed,
    }
    (fold,) = held_out_split(stimuli, options.seed)
    populations = []
    with progress_bar("Scoring candidates", options.populations * len(candidates)) as advance:
        for number in range(options.populations):
            source = candidates[number % len(candidates)]
            kept = out / "populations" / f"{number:03d}.npz"
            fingerprint = sha256_of_json([settings, source.name, number])
            population = read_population(kept, fingerprint)
            if population is None:
                simulated = simulate_from_layer(
                    stimuli,
                    source.layer.read(np.arange(stimuli.n_stimuli)),
                    source.name,
                    options.sites,
                    options.seed + number,
                )
                errors: dict[str, dict[str, np.ndarray]] = {}
                headline = ""
                for candidate in candidates:
                    of_all, headline = _errors(candidate, simulated, fold, search, kept)
                    errors[candidate.name] = of_all
                    advance(1)
                floor = _floor(simulated, fold)
                population = Population(source.name, floor, errors, headline)
                write_population(kept, fingerprint, population)
            else:
                advance(len(candidates))
            populations.append(population)
    result = {
        "schema_version": 1,
        "simulated": True,
        "settings": settings,
        "candidates": [candidate.name for candidate in candidates],
        **summary(populations, options.seed),
        "notes": notes.said,
    }
    write_json(out / RECOVERY_FILE, result)
    return result


def _candidates(
    model: Path, stimuli: Recordings, out: Path, options: RecoveryOptions, notes: Notes
) -> tuple[list[_Candidate], dict[str, Any]]:
    """The layers of a model with their activations, and what these depend on."""
    backbone = load_backbone(model)
    preprocessing = choose_preprocessing(backbone, options.preprocess, notes)
    features = choose_features(backbone, options.layers, options.reduce, stimuli.n_stimuli, notes)
    folder = out / "activations" / model.stem
    extraction = extract_activations(
        backbone,
        preprocessing,
        features,
        stimuli,
        folder,
        options.device,
        notes,
        overwrite=True,
    )
    found = []
    for feature, layer in zip(features, extraction.layers(stimuli.stimulus_ids), strict=True):
        found.append(_Candidate(f"{model.stem}:{feature.layer.name}", layer, read_span(layer)))
    return found, {
        "file": model.name,
        "sha256": backbone.sha256,
        "preprocessing": preprocessing.to_json(),
        "layers": {feature.layer.name: str(feature.reduction) for feature in features},
    }


def _errors(
    candidate: _Candidate, simulated: Recordings, fold: Fold, search: SearchSpace, kept: Path
) -> tuple[dict[str, np.ndarray], str]:
    """Held-out errors of every predictor, float64 (n_test, n_sites), in z units; and the headline."""
    trials = kept.with_suffix("") / layer_path(Path(), candidate.name).name
    fits = fit_folds(
        [candidate.span],
        [candidate.name],
        simulated,
        [fold],
        search,
        "zscore",
        simulated.provenance["seed"],
        TrialRecord(trials, [candidate.name]),
    )
    recorded, scales = simulated.averages[fold.test], fits.scales[fold.test]
    errors = {
        name: (predicted[fold.test] - recorded) / scales
        for name, predicted in fits.predictions.items()
    }
    return errors, fits.headline


def _floor(simulated: Recordings, fold: Fold) -> float:
    """The MAE of the true rates, in z units."""
    assert simulated.noise_free is not None
    recorded = simulated.averages
    scaling = site_scaling(recorded[fold.train], "zscore")
    errors = (simulated.noise_free - recorded)[fold.test] / scaling.scale
    return float(np.abs(errors).mean())
