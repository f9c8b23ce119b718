"""The errors of an arena's runs: pooled by model and predictor, and paired differences between them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from typing import Any

import numpy as np

from nrp_onnx.recordings import Recordings
from nrp_onnx.report.sites import site_errors
from nrp_onnx.scoring.run import FinishedRun
from nrp_onnx.statistics import percentile_interval
from nrp_onnx.studies.arena_pooling import (
    PooledMean,
    Pooling,
    Session,
    holm,
    pooled_difference,
)
from nrp_onnx.studies.arena_words import CALIBRATED

#: Pairs of which the first is the map in question; ``headline`` stands for the run's own.
PREDICTOR_PAIRS = (
    ("nrp", "masked_ridge"),
    ("masked_kernel", "masked_ridge"),
    ("headline", "masked_ridge"),
    ("nrp", "ridge"),
    ("kernel", "ridge"),
    ("headline", "ridge"),
)
#: Powers of the absolute errors that are pooled, by name.
METRICS = {"mae": 1, "mse": 2}


@dataclass(frozen=True)
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
                        for metric in METRICS
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
            for metric in METRICS:
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
                ** METRICS[metric]
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
    for metric in METRICS:
        family = holm({str(at): of[metric]["p"] for at, of in enumerate(records)})
        for at, record in enumerate(records):
            record[metric]["p_holm"] = family[str(at)]
    return records
