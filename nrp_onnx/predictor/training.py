"""Trains many NRP heads on the same inputs at once: early stopping each, successive halving.

The paper trains with mean squared error and Adam and validates on a held-out set; the other losses,
dropout, weight decay (Loshchilov & Hutter 2019) and input noise are choices of a search. Successive
halving: Jamieson & Talwalkar (2016).
"""

import math
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import groupby

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from nrp_onnx.predictor.head import Job, TrainedHead, TrainingPlan
from nrp_onnx.predictor.readouts.dense import Dropout, Group, HeadShape, HeadStack, RandomStreams

#: From errors (heads, images, sites) to the loss of each; and to its slope, in their place.
LOSSES: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] = {
    "mse": (torch.square, lambda error: error.mul_(2)),
    "mae": (torch.abs, Tensor.sign_),
    "huber": (
        lambda error: F.huber_loss(error, torch.zeros_like(error), reduction="none"),
        lambda error: error.clamp_(-1, 1),
    ),
}


@dataclass(frozen=True)
class TrainingData:
    """Inputs and targets of the two sets of images.

    Attributes:
        fit_inputs: float32 (n_fit, features) for each candidate layer.
        fit_targets: float32 (n_fit, n_sites), 0 where there is none.
        fit_there: float32 (n_fit, n_sites), 1 where there is a target, else 0.
        validation_inputs: as ``fit_inputs``; empty tensors where nothing validates.
        validation_targets: float32 (n_validation, n_sites), NaN = missing.
        regions: places of the sites of each region.
    """

    fit_inputs: list[Tensor]
    fit_targets: Tensor
    fit_there: Tensor
    validation_inputs: list[Tensor]
    validation_targets: Tensor
    regions: list[Tensor]

    @classmethod
    def of(
        cls,
        inputs: Sequence[Tensor],
        targets: Tensor,
        fit: Tensor,
        validation: Tensor | None,
        regions: Sequence[Tensor],
        device: str,
    ) -> "TrainingData":
        """Take the two sets of images out of all; the arguments are those of `train_heads`."""
        if validation is None:
            validation = fit[:0]
        recorded = targets[fit]
        return cls(
            [x[fit].to(device) for x in inputs],
            torch.nan_to_num(recorded).to(device),
            (~torch.isnan(recorded)).float().to(device),
            [x[validation].to(device) for x in inputs],
            targets[validation].to(device),
            [sites.to(device) for sites in regions],
        )

    @property
    def device(self) -> torch.device:
        """Where the tensors are."""
        return self.fit_targets.device

    @property
    def validates(self) -> bool:
        """Whether there are validation images."""
        return len(self.validation_targets) > 0

    def validation_mae(self, rates: Tensor) -> Tensor:
        """Mean over regions of the MAE of some heads, (C,), from their rates (C, n_validation, sites).

        A region without a recorded rate among the validation images is left out.
        """
        error = (rates - self.validation_targets).abs_()
        there = ~torch.isnan(self.validation_targets)
        sums, counts = torch.where(there, error, 0.0).sum(dim=1), there.sum(dim=0)
        maes = [sums[:, sites].sum(dim=1) / counts[sites].sum() for sites in self.regions]
        known = [bool(counts[sites].any()) for sites in self.regions]
        return torch.stack(
            [mae for mae, is_known in zip(maes, known, strict=True) if is_known]
        ).mean(dim=0)


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


#: More heads in a stack bring nothing on a CPU.
_HEADS_A_STACK = 8
#: Fewer are not worth a core more: what they share, such as their inputs, is done once a stack.
_FEWEST_HEADS = 4
#: Successive halving judges after these parts of the epochs.
_RUNGS = (1 / 16, 1 / 8, 1 / 4, 1 / 2)


def train_heads(
    inputs: Sequence[Tensor],
    targets: Tensor,
    fit: Tensor,
    validation: Tensor | None,
    regions: Sequence[Tensor],
    jobs: Sequence[Job],
    plan: TrainingPlan,
    advance: Callable[[int], None],
    device: str = "cpu",
) -> list[TrainedHead]:
    """Train heads on the images ``fit``; each keeps the epoch with its least error on ``validation``.

    A job's initial weights, minibatches, dropout and input noise come from its seed alone, so its
    result is the same in any company, but for halving, which compares it with the others. On a CPU
    each of PyTorch's threads trains a stack of heads by itself: the layers of a head are too small
    to share, and threads that wait for each other on a busy machine cost more than they give.

    Args:
        inputs: one float32 tensor (n_images, features) for each candidate layer.
        targets: float32 tensor (n_images, n_sites), NaN = missing (left out of the loss).
        fit, validation: places of images; without ``validation`` every head trains for exactly
            ``plan.max_epochs`` epochs and keeps the last.
        regions: places of the sites of each region.
        jobs: what to train.
        advance: called with the number of heads that have ended; any thread may call it.
        device: ``cpu`` or ``cuda``.

    Returns:
        A head on the CPU for each job, in their order.
    """
    plan = replace(plan, max_epochs=plan.epochs(len(fit)), max_steps=None)
    data = TrainingData.of(inputs, targets, fit, validation, regions, device)
    stop = threading.Event()
    ended: dict[int, TrainedHead] = {}
    with one_torch_thread() as threads:
        stacks = [
            StackTraining(data, part, plan, advance, stop)
            for part in _stacks(jobs, threads if device == "cpu" else 0)
        ]
        pool = ThreadPoolExecutor(
            threads if device == "cpu" else 1, initializer=torch.set_num_threads, initargs=(1,)
        )
        try:
            for epoch in _rungs(plan, len(jobs) if data.validates else 0):
                for found in pool.map(lambda stack, until=epoch: stack.train(until), stacks):
                    ended |= found
                if epoch < plan.max_epochs:
                    standing = sorted(best for stack in stacks for best in stack.best())
                    worse = [place for _, place in standing[math.ceil(len(standing) / 2) :]]
                    for stack in stacks:
                        ended |= stack.end(worse)
        finally:
            stop.set()  # if this thread is interrupted, the others end with the epoch that runs
            pool.shutdown(cancel_futures=True)
    return [ended[place] for place in range(len(jobs))]


@contextmanager
def one_torch_thread() -> Iterator[int]:
    """Use one thread of PyTorch while the block runs; yields how many there were."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield threads
    finally:
        torch.set_num_threads(threads)


def _stacks(jobs: Sequence[Job], cores: int) -> list[dict[int, Job]]:
    """Jobs by their places, put together where they may share a stack.

    Args:
        cores: that train stacks at a time; 0: a GPU does, which takes any number of heads together.
    """
    alike: dict[tuple[object, ...], dict[int, Job]] = {}
    for place, job in enumerate(jobs):
        alike.setdefault(stack_key(job), {})[place] = job
    stacks = []
    for part in alike.values():
        n_stacks = 1
        if cores:
            for_all_cores = min(math.ceil(cores / len(alike)), len(part) // _FEWEST_HEADS)
            n_stacks = max(math.ceil(len(part) / _HEADS_A_STACK), for_all_cores)
        # Neighbours in seed see the same inputs; the sort is stable.
        places = sorted(part, key=lambda place: jobs[place].seed)
        for places_of_one in np.array_split(places, n_stacks):
            stacks.append({int(place): jobs[place] for place in places_of_one})
    return stacks


def _rungs(plan: TrainingPlan, n_jobs: int) -> list[int]:
    """After which epochs heads are compared; the last is the end."""
    n_halvings = math.ceil(math.log2(n_jobs)) if plan.halving and n_jobs > 1 else 0
    parts = _RUNGS[max(0, len(_RUNGS) - n_halvings) :] if n_halvings else ()
    epochs = {math.ceil(plan.max_epochs * part) for part in parts}
    return sorted(epochs | {plan.max_epochs})
