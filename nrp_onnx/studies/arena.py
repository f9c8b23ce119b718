"""The arena: several models on several recordings, pooled over sessions and animals."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from nrp_onnx.errors import OptionError, RunError
from nrp_onnx.files import safe_name, sha256_of_file, write_json
from nrp_onnx.recordings import Recordings
from nrp_onnx.scoring.options import ScoreOptions
from nrp_onnx.scoring.run import FinishedRun
from nrp_onnx.statistics import Interval, bootstrap_means, percentile_interval
from nrp_onnx.studies.arena_errors import METRICS, Arena, SiteGroup, site_groups
from nrp_onnx.studies.arena_report import write_arena_report
from nrp_onnx.studies.scored_models import given_models, score_models, study_facts, write_csv


def study_arena(
    files: Sequence[Path],
    recordings: Mapping[str, Recordings],
    out: Path,
    options: ScoreOptions,
    preprocess: Mapping[str, str] | None = None,
    animals: Mapping[str, str] | None = None,
    page: Path | None = None,
    command: Sequence[str] = (),
) -> dict[str, Any]:
    """Score every model on every recordings, and pool the errors.

    Runs are in ``out/MODEL-RECORDINGS``; finished ones are taken as they are. Sites belong to the
    animal and session that their recordings say; without such labels, a recordings is one session.

    Args:
        recordings: by the names that they have in the arena.
        preprocess: by the model's name, its own choice; others take that of the options.
        animals: by the name of the recordings, of which animal they are, where their sites do not say.
        page: a Markdown file that takes the results in words and tables.
        command: that made the study, for the page.

    Returns:
        The content of arena.json.

    Raises:
        OptionError: if two models have one name, or there is no such name, or an animal is not known.
        RunError: if errors of the runs cannot be pooled: of other units or another version.
        ModelError: at the end, if a pair was not scored.
    """
    names = list(recordings)
    if not (files and names):
        raise OptionError(
            "an arena takes a model and recordings", where="MODELS, --recordings", found="none"
        )
    models = given_models(files, options)
    known = {model.name for model in models}
    _check_names(preprocess or {}, known, "--preprocess")
    _check_names(animals or {}, set(names), "--animals")
    groups = [
        group
        for name, of in recordings.items()
        for group in site_groups(name, of, (animals or {}).get(name, ""))
    ]
    if len({bool(group.animal) for group in groups}) > 1:
        raise OptionError(
            "the animal of some sites is not known",
            where="--animals",
            expected="an animal for every recordings",
            found="none for "
            + ", ".join(dict.fromkeys(of.recordings for of in groups if not of.animal)),
            fix="Name it with --animals RECORDINGS=ANIMAL, or in the column animal of sites.csv.",
        )
    pairs = {
        (model.name, name): replace(
            model,
            name=safe_name(f"{model.name}-{name}"),
            options=replace(
                options, preprocess=(preprocess or {}).get(model.name, options.preprocess)
            ),
            recordings=of,
        )
        for name, of in recordings.items()
        for model in models
    }
    folders = [model.name for model in pairs.values()]
    if len(set(folders)) < len(folders):
        raise OptionError(
            "two pairs would be scored into one folder",
            where="MODELS, --recordings",
            expected="names that differ when they are joined",
            found=", ".join(name for name in folders if folders.count(name) > 1),
        )
    scored = score_models(list(pairs.values()), None, out)
    runs = {
        pair: scored.results[model.name]
        for pair, model in pairs.items()
        if model.name in scored.results
    }
    complete = [of.name for of in models if all((of.name, name) in runs for name in names)]
    if not complete:
        scored.check(out)
    _check_alike(runs)
    arena = Arena(complete, names, runs, groups, options.seed)
    first = next(iter(runs.values()))
    study = {
        **study_facts("arena", {"": first}),
        "command": list(command),
        "headline": first.headline,
        "seed": options.seed,
        "recordings": [
            _recordings_record(name, of, groups, runs) for name, of in recordings.items()
        ],
        "shared_images": _shared_images(recordings),
        "models": [_model_record(of.name, runs) for of in models if _runs_of(of.name, runs)],
        "scores": [
            _score_record(model, name, run, options.seed) for (model, name), run in runs.items()
        ],
        "pooling": {
            "n_resamples": arena.pooling.n_resamples,
            "levels": arena.pooling.levels(),
            "models": complete,
            "predictors": list(arena.predictors),
        },
        "pooled": arena.pooled(),
        "predictor_pairs": arena.predictor_pairs(),
        "model_pairs": arena.model_pairs(),
        "failed": scored.failed,
    }
    write_json(out / "arena.json", study)
    write_csv(out / "arena.csv", study["scores"])
    for kind in ("predictor_pairs", "model_pairs"):
        flat = [
            {key: of[key] for key in ("first", "second", *METRICS, "wins", "n_sites")}
            for of in study[kind]
        ]
        if flat:
            write_csv(out / f"arena_{kind}.csv", flat)
    write_arena_report(study, runs, out, page)
    scored.check(out)
    return study


def _check_names(given: Mapping[str, str], known: set[str], where: str) -> None:
    unknown = [name for name in given if name not in known]
    if unknown:
        raise OptionError(
            "no such name",
            where=where,
            expected=", ".join(sorted(known)),
            found=", ".join(unknown),
        )


def _check_alike(runs: Mapping[tuple[str, str], FinishedRun]) -> None:
    """Refuse to pool what is not of one kind.

    Raises:
        RunError: which names two runs.
    """
    first = next(iter(runs.values()))
    for run in runs.values():
        for name, here, there in (
            ("units", first.units, run.units),
            ("headline predictor", first.headline, run.headline),
            (
                "algorithm version",
                first.result.algorithm_version,
                run.result.algorithm_version,
            ),
        ):
            if here != there:
                raise RunError(
                    f"the runs do not have the same {name}",
                    where=f"{first.folder} and {run.folder}",
                    expected=f"one {name} to pool errors",
                    found=f"{here} and {there}",
                    fix="Give --normalise zscore."
                    if name == "units"
                    else "Score again with --overwrite.",
                )


def _runs_of(model: str, runs: Mapping[tuple[str, str], FinishedRun]) -> list[FinishedRun]:
    return [run for (of, _), run in runs.items() if of == model]


def _model_record(name: str, runs: Mapping[tuple[str, str], FinishedRun]) -> dict[str, Any]:
    facts = _runs_of(name, runs)[0].result.model
    return {
        "model": name,
        "sha256": facts.sha256,
        "n_parameters": facts.n_parameters,
        "weights": (facts.source or {}).get("weights"),
        "source": facts.source,
        "preprocessing": facts.preprocessing,
        "layers": [layer.name for layer in facts.layers],
    }


def _recordings_record(
    name: str,
    recordings: Recordings,
    groups: Sequence[SiteGroup],
    runs: Mapping[tuple[str, str], FinishedRun],
) -> dict[str, Any]:
    own = [group for group in groups if group.recordings == name]
    found = [run for (_, of), run in runs.items() if of == name]
    regions = found[0].regions if found else {}
    return {
        "name": name,
        "data": recordings.name,
        "simulated": recordings.simulated,
        "fingerprint": recordings.fingerprint,
        "animals": list(dict.fromkeys(group.animal for group in own)),
        "sessions": list(dict.fromkeys(group.session for group in own)),
        "n_images": recordings.n_stimuli,
        "n_sites": recordings.n_sites,
        "regions": list(recordings.region_names),
        "units": recordings.units,
        "reliability": {region: of.reliability for region, of in regions.items()},
        "noise_floor": {region: of.noise_floor for region, of in regions.items()},
        "no_noise_floor": {region: of.noise_floor_reason for region, of in regions.items()},
        "citation": recordings.citation,
        "licence": recordings.licence,
    }


def _shared_images(recordings: Mapping[str, Recordings]) -> list[dict[str, Any]]:
    """Recordings that show some of the same images, byte for byte, and how many."""
    images = {
        name: {sha256_of_file(path) for path in of.stimulus_paths}
        for name, of in recordings.items()
    }
    return [
        {"recordings": [first, second], "n_images": len(images[first] & images[second])}
        for first, second in combinations(images, 2)
        if images[first] & images[second]
    ]


def _score_record(model: str, recordings: str, run: FinishedRun, seed: int) -> dict[str, Any]:
    floors = [of.noise_floor for of in run.regions.values() if of.noise_floor is not None]
    predictors = {
        name: {
            "mae": float(np.mean([of.predictors[name].mae for of in run.regions.values()])),
            "ci95": list(_interval(run, name, seed)),
            "mse": float(
                np.mean(
                    [
                        np.nanmean(run.absolute_errors(name)[:, run.sites_of(region)] ** 2)
                        for region in run.region_names
                    ]
                )
            ),
        }
        for name in run.predictions
    }
    return {
        "model": model,
        "recordings": recordings,
        "run": run.folder.name,
        "nrp_error": run.nrp_error,
        "ci95": list(run.ci95),
        "noise_floor": float(np.mean(floors)) if len(floors) == len(run.regions) else None,
        "predictors": predictors,
    }


def _interval(run: FinishedRun, predictor: str, seed: int) -> Interval:
    """Of a predictor's error, the mean over regions."""
    if len(run.regions) == 1:
        return next(iter(run.regions.values())).predictors[predictor].mae_ci95
    errors = run.absolute_errors(predictor)
    means = [bootstrap_means(errors[:, run.sites_of(of)], seed) for of in run.region_names]
    return percentile_interval(np.mean(means, axis=0))
