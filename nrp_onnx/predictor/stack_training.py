"""Trains the heads of one stack, epoch by epoch; those that stop leave it."""

import math
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import groupby

import torch
from torch import Tensor

from nrp_onnx.predictor.head_stack import Dropout, Group, HeadShape, HeadStack
from nrp_onnx.predictor.job import Job, TrainedHead, TrainingPlan
from nrp_onnx.predictor.losses import LOSSES
from nrp_onnx.predictor.random_streams import RandomStreams
from nrp_onnx.predictor.training_data import TrainingData

#: Validation images that pass through a stack at once.
_BLOCK = 512


@dataclass
class _Member:
    """A head of the stack: its place among all jobs, and how it fares."""

    place: int
    job: Job
    best: float = math.inf
    best_epoch: int = 0
    curve: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class _Company:
    """Heads that see the same inputs: same seed, same noise."""

    rows: slice
    input_noise: float
    streams: RandomStreams


class StackTraining:
    """The training of heads that `stack_key` says may share a stack.

    Args:
        jobs: by their places among all jobs.
        advance: called with the number of heads that ended.
        stop: once set, training ends with the epoch that runs.
    """

    def __init__(
        self,
        data: TrainingData,
        jobs: Mapping[int, Job],
        plan: TrainingPlan,
        advance: Callable[[int], None],
        stop: threading.Event,
    ) -> None:
        self._data, self._plan, self._advance, self._stop = data, plan, advance, stop
        # Heads of a company are neighbours, so that its rows are a slice.
        self._members = [
            _Member(place, job)
            for place, job in sorted(jobs.items(), key=lambda item: _company(item[1]))
        ]
        config = self._members[0].job.config
        self._layers, self._loss, self._slope = config.layers, *LOSSES[config.loss]
        n_inputs = (data.fit_inputs[place].shape[1] for place in config.layers)
        n_sites = data.fit_targets.shape[1]
        self._shape = HeadShape(tuple(n_inputs), config.l1, config.l2, n_sites)
        self._streams = {
            key: RandomStreams(key[0], data.device) for key in map(_company, jobs.values())
        }
        self._epoch = 0
        self._started = False

    def best(self) -> list[tuple[float, int]]:
        """Of the heads that still train, the least validation MAE so far, and the place."""
        return [(member.best, member.place) for member in self._members]

    def train(self, until: int) -> dict[int, TrainedHead]:
        """Train to the end of epoch ``until``; the heads that ended by then, by place."""
        if not self._started:  # not before its turn: the parameters of all stacks may be many
            self._start()
        ended: dict[int, TrainedHead] = {}
        while self._members and self._epoch < until and not self._stop.is_set():
            ended |= self._train_epoch()
        return ended

    def end(self, places: Iterable[int]) -> dict[int, TrainedHead]:
        """End the heads at these places, as far as they are in this stack."""
        ending = set(places)
        return self._end([r for r, member in enumerate(self._members) if member.place in ending])

    def _start(self) -> None:
        self._started = True
        rows = {job.seed: self._shape.initial_row(job.seed) for job in self._jobs}
        values = torch.stack([rows[job.seed] for job in self._jobs]).to(self._data.device)
        self._best = values.clone()
        rates = [job.config.learning_rate for job in self._jobs]
        decays = [job.config.weight_decay for job in self._jobs]
        self._stack = HeadStack(self._shape, values, rates, decays)
        self._settle()

    @property
    def _jobs(self) -> list[Job]:
        return [member.job for member in self._members]

    def _settle(self) -> None:
        """What follows from which heads are in the stack."""
        self._companies = []
        for key, rows in groupby(range(len(self._members)), lambda r: _company(self._jobs[r])):
            places = list(rows)
            here = slice(places[0], places[-1] + 1)
            self._companies.append(_Company(here, key[1], self._streams[key]))
        dropped = torch.tensor([job.config.dropout for job in self._jobs])
        self._dropped = dropped.to(self._data.device)[:, None, None] if dropped.any() else None

    def _train_epoch(self) -> dict[int, TrainedHead]:
        self._epoch += 1
        last = self._epoch == self._plan.max_epochs
        losses = self._descend()
        maes = self._validate() if self._data.validates else None
        improved, ending = [], []
        for row, member in enumerate(self._members):
            member.losses.append(losses[row])
            if maes is not None:
                member.curve.append(maes[row])
            if last if maes is None else maes[row] < member.best:
                member.best = math.nan if maes is None else maes[row]
                member.best_epoch = self._epoch
                improved.append(row)
            idle = maes is not None and self._epoch - member.best_epoch >= self._plan.patience
            if last or idle:
                ending.append(row)
        self._best[improved] = self._stack.values[improved]
        return self._end(ending)

    def _end(self, rows: list[int]) -> dict[int, TrainedHead]:
        if not rows:
            return {}
        ended = {}
        for row in rows:
            member = self._members[row]
            ended[member.place] = TrainedHead(
                config=member.job.config,
                seed=member.job.seed,
                validation_mae=member.best,
                epochs=member.best_epoch,
                curve=tuple(member.curve),
                losses=tuple(member.losses),
                head=self._shape.head(self._best[row]),
            )
        kept = sorted(set(range(len(self._members))) - set(rows))
        self._members = [self._members[row] for row in kept]
        self._best = self._best[kept]
        self._stack.keep(kept)
        self._settle()
        self._advance(len(ended))
        return ended

    @torch.no_grad()
    def _descend(self) -> list[float]:
        """One epoch; the mean loss of each head."""
        data = self._data
        total = torch.zeros(len(self._members), device=data.device)
        orders = [
            company.streams.minibatches(len(data.fit_targets), self._plan.batch_size)
            for company in self._companies
        ]
        n_steps = math.ceil(len(data.fit_targets) / self._plan.batch_size)
        for step, batches in enumerate(zip(*orders, strict=True)):
            groups = [
                self._group(company, batch)
                for company, batch in zip(self._companies, batches, strict=True)
            ]
            dropout = self._draw_dropout(len(batches[0]))
            found = self._stack.forward(groups, dropout)
            error, weight = found.rates, torch.empty_like(total)
            for group, batch in zip(groups, batches, strict=True):
                there = data.fit_there[batch]
                error[group.rows].sub_(data.fit_targets[batch]).mul_(there)
                weight[group.rows] = 1 / there.sum().clamp(min=1)
            total += self._loss(error).sum(dim=(1, 2))
            slope = self._slope(error).mul_(weight[:, None, None])
            self._stack.backward(groups, found, slope, dropout)
            self._stack.update(self._part(self._epoch - 1 + step / n_steps))
        losses: list[float] = (total / data.fit_there.sum().clamp(min=1)).tolist()
        return losses

    def _part(self, epochs: float) -> float:
        """Of the learning rates, after so many epochs."""
        if self._plan.schedule == "constant":
            return 1.0
        return (1 + math.cos(math.pi * epochs / self._plan.max_epochs)) / 2

    def _group(self, company: _Company, batch: Tensor) -> Group:
        inputs = [self._data.fit_inputs[place].index_select(0, batch) for place in self._layers]
        if company.input_noise:
            for x in inputs:
                x.add_(company.streams.noise_like(x), alpha=company.input_noise)
        return Group(company.rows, inputs)

    def _draw_dropout(self, n_images: int) -> Dropout | None:
        if self._dropped is None:
            return None
        widths = self._shape.l1 * len(self._layers), self._shape.l2
        drawn = [
            company.streams.uniform(n_images, sum(widths)).expand(
                company.rows.stop - company.rows.start, -1, -1
            )
            for company in self._companies
        ]
        scale = 1 / (1 - self._dropped)
        kept = torch.cat(drawn).ge(self._dropped) * scale
        l1, l2 = kept.split(widths, dim=2)
        return Dropout(l1, l2, scale)

    @torch.no_grad()
    def _validate(self) -> list[float]:
        everyone, inputs = slice(None), [self._data.validation_inputs[i] for i in self._layers]
        rates = [
            self._stack.forward([Group(everyone, block)]).rates
            for block in zip(*(x.split(_BLOCK) for x in inputs), strict=True)
        ]
        maes: list[float] = self._data.validation_mae(torch.cat(rates, dim=1)).tolist()
        return maes


def stack_key(job: Job) -> tuple[object, ...]:
    """Jobs with the same key may train in one stack."""
    return job.config.layers, job.config.l1, job.config.l2, job.config.loss


def _company(job: Job) -> tuple[int, float]:
    """Jobs with the same seed and noise see the same inputs."""
    return job.seed, job.config.input_noise
