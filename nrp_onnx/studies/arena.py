"""The arena: several models on several recordings, pooled over sessions and animals."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from nrp_onnx.errors import OptionError, RunError
from nrp_onnx.files import safe_name, sha256_of_file, write_json
from nrp_onnx.recordings import Recordings
from nrp_onnx.report.sites import site_errors
from nrp_onnx.scoring.options import ScoreOptions
from nrp_onnx.scoring.run import FinishedRun
from nrp_onnx.statistics import Interval, bootstrap_means, percentile_interval
from nrp_onnx.studies.arena_pooling import (
    PooledMean,
    Pooling,
    Session,
    holm,
    pooled_difference,
)
from nrp_onnx.studies.arena_report import write_arena_report
from nrp_onnx.studies.arena_words import CALIBRATED
from nrp_onnx.studies.scored_models import given_models, score_models, study_facts, write_csv

#: Pairs of which the first is the map in question; ``headline`` stands for the run's own.
PREDICTOR_PAIRS = (
    ("nrp", "masked_ridge"),
    ("masked_kernel", "masked_ridge"),
    ("headline", "masked_ridge"),
    ("nrp", "ridge"),
    ("kernel", "ridge"),
    ("headline", "ridge"),
)
_METRICS = {"mae": 1, "mse": 2}


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
            {key: of[key] for key in ("first", "second", *_METRICS, "wins", "n_sites")}
            for of in study[kind]
        ]
        if flat:
            write_csv(out / f"arena_{kind}.csv", flat)
    write_arena_report(study, runs, out, page)
    scored.check(out)
    return study


@dataclass(frozen=True, eq=False)
class SiteGroup:
    """Sites of one recordings that are of one session.

    Attributes:
        animal: empty where it is not known.
        sites: their ids.
    """

    recordings: str
    animal: str
    session: str
    sites: tuple[str, ...]


def site_groups(name: str, recordings: Recordings, animal: str) -> list[SiteGroup]:
    """The sites by animal and session, as sites.csv says; else all of them are one session.

    Args:
        name: of the recordings in the arena, and of their session where their sites.csv has none.
        animal: of sites that have none in sites.csv; empty: not known.
    """
    n = recordings.n_sites
    labels = recordings.site_labels
    of_animal = labels.get("animal", ("",) * n)
    of_session = labels.get("session", ("",) * n)
    groups: dict[tuple[str, str], list[str]] = {}
    for site, own, session in zip(recordings.site_ids, of_animal, of_session, strict=True):
        groups.setdefault((own or animal, session or name), []).append(site)
    return [SiteGroup(name, of, session, tuple(sites)) for (of, session), sites in groups.items()]


@dataclass(frozen=True, eq=False)
class Arena:
    """The errors of all runs, pooled.

    Attributes:
        models: those that were scored on all recordings: only these are pooled.
        recordings: their names.
        runs: by model and recordings.
        groups: the sessions of all recordings.
        seed: of the bootstrap.
    """

    models: list[str]
    recordings: list[str]
    runs: Mapping[tuple[str, str], FinishedRun]
    groups: list[SiteGroup]
    seed: int

    @cached_property
    def predictors(self) -> tuple[str, ...]:
        """What every run has, in the order of the first."""
        every = [self.runs[model, name] for model in self.models for name in self.recordings]
        first = every[0].predictions
        return tuple(key for key in first if all(key in run.predictions for run in every))

    @cached_property
    def headline(self) -> str:
        """The predictor whose error is the NRP-error, the same in all runs."""
        return next(iter(self.runs.values())).headline

    @cached_property
    def pooling(self) -> Pooling:
        """Over all sessions."""
        return self._pooling(self.groups)

    @cached_property
    def pooling_of(self) -> dict[str, Pooling]:
        """Over the sessions of each recordings alone."""
        return {name: self._pooling(self._groups_of(name)) for name in self.recordings}

    def mean(
        self, models: Sequence[str], predictor: str, metric: str, recordings: str | None = None
    ) -> PooledMean:
        """The pooled error of a predictor, mean over models.

        Args:
            metric: ``mae`` or ``mse``.
            recordings: only these; None: all.
        """
        # All models have the same gaps: the mean of their means is that of their mean errors.
        found = [self._mean(model, predictor, metric, recordings) for model in models]
        resampled = np.mean([of.resampled for of in found], axis=0)
        value = float(np.mean([of.value for of in found]))
        return PooledMean(value, percentile_interval(resampled), resampled)

    def pooled(self) -> dict[str, Any]:
        """The pooled MAE of each model with each predictor that is compared, and of all models."""
        keys = [key for pair in self.compared for key in pair]
        shown = dict.fromkeys(("mean", *keys, self.headline))

        def record(models: list[str]) -> dict[str, Any]:
            return {
                key: {"mae": found.value, "ci95": list(found.ci95)}
                for key in shown
                if key in self.predictors
                for found in [self.mean(models, key, "mae")]
            }

        return {"all": record(self.models), **{model: record([model]) for model in self.models}}

    @cached_property
    def compared(self) -> list[tuple[str, str]]:
        """The pairs of predictors that all runs have, each with that of its calibrated twins."""
        return pairs_of_predictors(self.predictors, self.headline)

    def predictor_pairs(self) -> list[dict[str, Any]]:
        """A record a pair: pooled over all models and recordings, then of each one."""
        records = []
        for first, second in self.compared:
            records.append(
                {
                    "first": first,
                    "second": second,
                    **{
                        metric: self._difference(self.models, first, second, metric)
                        for metric in _METRICS
                    },
                    **self._wins([(model, first, model, second) for model in self.models]),
                    "models": {
                        model: self._difference([model], first, second, "mae")
                        for model in self.models
                    },
                    "recordings": {
                        name: self._difference(self.models, first, second, "mae", name)
                        for name in self.recordings
                    },
                }
            )
        return _corrected(records)

    def model_pairs(self) -> list[dict[str, Any]]:
        """A record a pair of models, with the headline predictor of both."""
        records = []
        for first, second in combinations(self.models, 2):
            record: dict[str, Any] = {"first": first, "second": second}
            for metric in _METRICS:
                record[metric] = _difference_record(
                    self.mean([first], self.headline, metric),
                    self.mean([second], self.headline, metric),
                )
            record |= self._wins([(first, self.headline, second, self.headline)])
            record["recordings"] = {
                name: _difference_record(
                    self.mean([first], self.headline, "mae", name),
                    self.mean([second], self.headline, "mae", name),
                )
                for name in self.recordings
            }
            records.append(record)
        return _corrected(records)

    def _difference(
        self,
        models: Sequence[str],
        first: str,
        second: str,
        metric: str,
        recordings: str | None = None,
    ) -> dict[str, Any]:
        return _difference_record(
            self.mean(models, first, metric, recordings),
            self.mean(models, second, metric, recordings),
        )

    def _wins(self, compared: Sequence[tuple[str, str, str, str]]) -> dict[str, int]:
        """At how many sites the first errs less.

        Args:
            compared: model and predictor, less model and predictor; the mean is taken over these.
        """
        apart = np.concatenate(
            [
                np.mean(
                    [
                        site_errors(self.runs[model, name], first)
                        - site_errors(self.runs[other, name], second)
                        for model, first, other, second in compared
                    ],
                    axis=0,
                )
                for name in self.recordings
            ]
        )
        return {"wins": int((apart < 0).sum()), "n_sites": int(np.isfinite(apart).sum())}

    @cached_property
    def _means(self) -> dict[tuple[str, str, str, str | None], PooledMean]:
        return {}

    def _mean(self, model: str, predictor: str, metric: str, recordings: str | None) -> PooledMean:
        key = (model, predictor, metric, recordings)
        if key not in self._means:
            groups = self.groups if recordings is None else self._groups_of(recordings)
            pooling = self.pooling if recordings is None else self.pooling_of[recordings]
            errors = [
                self.runs[model, group.recordings].absolute_errors(predictor)[
                    :, self._columns(group)
                ]
                ** _METRICS[metric]
                for group in groups
            ]
            self._means[key] = pooling.mean(errors)
        return self._means[key]

    def _groups_of(self, recordings: str) -> list[SiteGroup]:
        return [group for group in self.groups if group.recordings == recordings]

    def _columns(self, group: SiteGroup) -> list[int]:
        places = {site: at for at, site in enumerate(self._run_of(group).site_ids)}
        return [places[site] for site in group.sites]

    def _run_of(self, group: SiteGroup) -> FinishedRun:
        return self.runs[self.models[0], group.recordings]

    def _pooling(self, groups: Sequence[SiteGroup]) -> Pooling:
        sessions = []
        for group in groups:
            run = self._run_of(group)
            regions = tuple(run.site_regions[column] for column in self._columns(group))
            # Two recordings may have sessions of one name, on images of their own.
            name = f"{group.recordings}/{group.session}"
            sessions.append(Session(group.animal, name, len(run.stimulus_ids), regions))
        return Pooling(sessions, self.seed)


def pairs_of_predictors(predictors: Sequence[str], headline: str) -> list[tuple[str, str]]:
    """Those of `PREDICTOR_PAIRS` that are there, then the same of their calibrated twins."""
    named = [(headline if first == "headline" else first, of) for first, of in PREDICTOR_PAIRS]
    twins = [
        (first.removesuffix(CALIBRATED) + CALIBRATED, second + CALIBRATED)
        for first, second in named
    ]
    return [
        (first, second)
        for first, second in dict.fromkeys(named + twins)
        if first in predictors and second in predictors and first != second
    ]


def _difference_record(first: PooledMean, second: PooledMean) -> dict[str, Any]:
    found = pooled_difference(first, second)
    return {"difference": found.difference, "ci95": list(found.ci95), "p": found.p}


def _corrected(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The records with ``p_holm`` beside the p of the pooled differences, a family a metric."""
    for metric in _METRICS:
        family = holm({str(at): of[metric]["p"] for at, of in enumerate(records)})
        for at, record in enumerate(records):
            record[metric]["p_holm"] = family[str(at)]
    return records


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
