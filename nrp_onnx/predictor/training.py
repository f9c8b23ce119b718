"""Trains many NRP heads on the same inputs at once: early stopping for each, successive halving.

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

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nrp_onnx.predictor.head import Job, TrainedHead, TrainingPlan
from nrp_onnx.predictor.readouts.dense import DenseHeads, HeadShape
from nrp_onnx.predictor.readouts.spatial import Grid, SpatialHeads, SpatialShape
from nrp_onnx.predictor.readouts.stacked import Dropout, RandomStreams, StackedHeads
from nrp_onnx.predictor.rows_on_disk import RowsOnDisk

#: From errors (heads, images, sites) to the loss of each.
LOSSES: dict[str, Callable[[Tensor], Tensor]] = {
    "mse": torch.square,
    "mae": torch.abs,
    "huber": lambda error: F.huber_loss(error, torch.zeros_like(error), reduction="none"),
}

#: Heads that are computed as one. More gain little on a CPU. The number must not depend on the
#: number of cores: with it, the last bits of a product may change.
_HEADS_A_STACK = 4
#: Successive halving compares heads after these parts of the epochs.
_ROUNDS = (1 / 16, 1 / 8, 1 / 4, 1 / 2)
#: Validation images that pass through a stack at once.
_BLOCK = 128


@dataclass(frozen=True)
class TrainingData:
    """Inputs and targets of the images that heads train on, and of those that judge them.

    Attributes:
        inputs: of all images, float32 (n_images, features) for each candidate layer; of spatial heads
            (n_images, P, channels). They are not copied: those of many images are large, and may lie on
            disk.
        fit, validation: places of the images; ``validation`` is empty where nothing validates.
        targets: of all images, float32 (n_images, n_sites), NaN = missing.
        regions: places of the sites of each region.
        grids: height and width of each candidate layer, for spatial heads.
    """

    inputs: Sequence[Tensor | RowsOnDisk]
    fit: Tensor
    validation: Tensor
    targets: Tensor
    regions: Sequence[Tensor]
    grids: Sequence[Grid] = ()

    @classmethod
    def of(
        cls,
        inputs: Sequence[Tensor | RowsOnDisk],
        targets: Tensor,
        fit: Tensor,
        validation: Tensor | None,
        regions: Sequence[Tensor],
        grids: Sequence[Grid] = (),
        device: str = "cpu",
    ) -> "TrainingData":
        """The two sets of images; the arguments are those of `train_heads`."""
        if validation is None:
            validation = fit[:0]
        return cls(
            [x.to(device) for x in inputs],
            fit.to(device),
            validation.to(device),
            targets.to(device),
            [sites.to(device) for sites in regions],
            grids,
        )

    @property
    def device(self) -> torch.device:
        """Where they are, and where heads train on them."""
        return self.targets.device

    @property
    def validates(self) -> bool:
        """Whether there are validation images."""
        return len(self.validation) > 0

    def validation_mae(self, rates: Tensor) -> Tensor:
        """Mean over regions of the MAE of each head, (C,), from rates (C, n_validation, sites).

        A region without a recorded rate among the validation images is left out.
        """
        recorded = self.targets[self.validation]
        error = (rates - recorded).abs_()
        known = ~torch.isnan(recorded)
        sums, counts = torch.where(known, error, 0.0).sum(dim=1), known.sum(dim=0)
        maes = [
            sums[:, sites].sum(dim=1) / counts[sites].sum()
            for sites in self.regions
            if counts[sites].any()
        ]
        return torch.stack(maes).mean(dim=0)


def train_heads(
    inputs: Sequence[Tensor | RowsOnDisk],
    targets: Tensor,
    fit: Tensor,
    validation: Tensor | None,
    regions: Sequence[Tensor],
    jobs: Sequence[Job],
    plan: TrainingPlan,
    advance: Callable[[int], None],
    grids: Sequence[Grid] = (),
    device: str = "cpu",
) -> list[TrainedHead]:
    """Train heads on the images ``fit``; each keeps the epoch with its least error on ``validation``.

    A job's initial weights, minibatches, dropout and input noise come from its seed alone. So its
    result does not depend on the other jobs, but for rounding and for successive halving, which
    compares them. Each of PyTorch's threads trains a stack of heads by itself: the layers of a head
    are too small to share, and threads that wait for each other on a busy machine cost more than
    they give.

    Args:
        inputs: one float32 tensor (n_images, features) for each candidate layer.
        targets: float32 tensor (n_images, n_sites), NaN = missing (left out of the loss).
        fit, validation: places of images; without ``validation`` every head trains for exactly
            ``plan.max_epochs`` epochs and keeps the last.
        regions: places of the sites of each region.
        jobs: what to train.
        advance: called with the number of heads that have ended; any thread may call it.
        grids: height and width of each candidate layer, for spatial heads.
        device: where heads train, as PyTorch names it; they are returned on the CPU.

    Returns:
        A head for each job, in their order.
    """
    data = TrainingData.of(inputs, targets, fit, validation, regions, grids, device)
    return train_parts([(data, jobs)], plan, advance)


def train_parts(
    parts: Sequence[tuple[TrainingData, Sequence[Job]]],
    plan: TrainingPlan,
    advance: Callable[[int], None],
) -> list[TrainedHead]:
    """`train_heads` on several sets of images side by side; successive halving compares all heads.

    Returns:
        A head for each job of the first part, then of the second, and so on.
    """
    n_images = min(len(data.fit) for data, _ in parts)
    plan = replace(plan, max_epochs=plan.epochs(n_images), max_steps=None)
    n_jobs = sum(len(jobs) for _, jobs in parts)
    validates = all(data.validates for data, _ in parts)
    stop = threading.Event()
    ended: dict[int, TrainedHead] = {}
    with one_torch_thread() as threads:
        stacks: list[_Stack] = []
        first = 0
        for data, jobs in parts:
            for alike in _stacks(jobs):
                placed = {first + place: job for place, job in alike.items()}
                stacks.append(_Stack(data, placed, plan, advance, stop))
            first += len(jobs)
        pool = ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,))
        try:
            for epoch in _rounds(plan, n_jobs if validates else 0):
                for found in pool.map(lambda stack, until=epoch: stack.train(until), stacks):
                    ended |= found
                if epoch < plan.max_epochs:
                    remaining = sorted(best for stack in stacks for best in stack.best())
                    worse = [place for _, place in remaining[math.ceil(len(remaining) / 2) :]]
                    for stack in stacks:
                        ended |= stack.end(worse)
        finally:
            stop.set()  # if this thread is interrupted, the others stop after their current epoch
            pool.shutdown(cancel_futures=True)
    return [ended[place] for place in range(n_jobs)]


@contextmanager
def one_torch_thread() -> Iterator[int]:
    """Use one thread of PyTorch while the block runs; yields how many there were."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield threads
    finally:
        torch.set_num_threads(threads)


def _stacks(jobs: Sequence[Job]) -> list[dict[int, Job]]:
    """Jobs by their places, in groups that are computed as one."""
    alike: dict[tuple[object, ...], list[int]] = {}
    for place, job in enumerate(jobs):
        config = job.config
        key = (
            *(config.layers, config.l1, config.l2, config.loss, config.input_noise),
            *(config.mask, config.components),
        )
        alike.setdefault(key, []).append(place)
    return [
        {int(place): jobs[place] for place in part}
        for places in alike.values()
        for part in np.array_split(places, math.ceil(len(places) / _heads_a_stack(jobs[places[0]])))
    ]


def _heads_a_stack(job: Job) -> int:
    """A spatial head keeps a core busy by itself."""
    return 1 if job.config.mask else _HEADS_A_STACK


def stacks_of(jobs: Sequence[Job], wanted: Sequence[Job]) -> list[Job]:
    """The jobs, in their order, of the stacks that have one of ``wanted``.

    The last bits of a head depend on the heads of its stack. So a head that is trained again is trained
    with the same ones.
    """
    places = sorted(
        place for stack in _stacks(jobs) if set(stack.values()) & set(wanted) for place in stack
    )
    return [jobs[place] for place in places]


def _rounds(plan: TrainingPlan, n_jobs: int) -> list[int]:
    """After which epochs heads are compared; the last is the end."""
    n_halvings = math.ceil(math.log2(n_jobs)) if plan.halving and n_jobs > 1 else 0
    parts = _ROUNDS[max(0, len(_ROUNDS) - n_halvings) :] if n_halvings else ()
    epochs = {math.ceil(plan.max_epochs * part) for part in parts}
    return sorted(epochs | {plan.max_epochs})


@dataclass
class _Member:
    """A head of a stack: its place among all jobs, and what its training gave so far."""

    place: int
    job: Job
    best_head: nn.Module | None = None
    best: float = math.inf
    best_epoch: int = 0
    curve: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)


class _Stack:
    """Heads with the same layers, sizes, loss and noise, trained epoch by epoch.

    Args:
        jobs: by their places among all jobs.
        advance: called with the number of heads that ended.
        stop: once set, training stops after the current epoch.
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
        # `DenseHeads` updates neighbours with the same rates together.
        self._members = [
            _Member(place, job)
            for place, job in sorted(
                jobs.items(),
                key=lambda item: (item[1].config.learning_rate, item[1].config.weight_decay),
            )
        ]
        config = self._members[0].job.config
        self._layers, self._noise = config.layers, config.input_noise
        self._loss = LOSSES[config.loss]
        self._streams = {job.seed: RandomStreams(job.seed) for job in jobs.values()}
        self._heads: StackedHeads | None = None
        self._epoch = 0

    def best(self) -> list[tuple[float, int]]:
        """The least validation MAE so far and the place of each head that still trains."""
        return [(member.best, member.place) for member in self._members]

    def train(self, until: int) -> dict[int, TrainedHead]:
        """Train to the end of epoch ``until``; the heads that ended by then, by place."""
        if self._heads is None:  # made late: the parameters of all stacks may be many
            self._heads = self._initial_heads()
            for row, member in enumerate(self._members):
                member.best_head = self._heads.head(row)
        ended: dict[int, TrainedHead] = {}
        while self._members and self._epoch < until and not self._stop.is_set():
            ended |= self._train_epoch(self._heads)
        return ended

    def _initial_heads(self) -> StackedHeads:
        data, jobs = self._data, [member.job for member in self._members]
        config, n_sites = jobs[0].config, data.targets.shape[1]
        n_inputs = tuple(data.inputs[place].shape[-1] for place in config.layers)
        rates = [job.config.learning_rate for job in jobs]
        decays = [job.config.weight_decay for job in jobs]
        seeds = [job.seed for job in jobs]
        if config.mask is None:
            shape = HeadShape(n_inputs, config.l1, config.l2, n_sites)
            return DenseHeads(shape, seeds, rates, decays, data.device)
        grids = tuple(data.grids[place] for place in config.layers)
        spatial = SpatialShape(grids, n_inputs, config.l1, n_sites, config.mask, config.components)
        return SpatialHeads(spatial, seeds, rates, decays, data.device)

    def end(self, places: Iterable[int]) -> dict[int, TrainedHead]:
        """End the heads at these places, as far as they are in this stack."""
        ending = set(places)
        return self._end([r for r, member in enumerate(self._members) if member.place in ending])

    def _train_epoch(self, heads: StackedHeads) -> dict[int, TrainedHead]:
        self._epoch += 1
        last = self._epoch == self._plan.max_epochs
        losses = self._descend(heads)
        maes = self._validate(heads) if self._data.validates else None
        ending = []
        for row, member in enumerate(self._members):
            member.losses.append(losses[row])
            if maes is not None:
                member.curve.append(maes[row])
            if last if maes is None else maes[row] < member.best:
                member.best = math.nan if maes is None else maes[row]
                member.best_epoch = self._epoch
                member.best_head = heads.head(row)
            idle = maes is not None and self._epoch - member.best_epoch >= self._plan.patience
            if last or idle:
                ending.append(row)
        return self._end(ending)

    def _end(self, rows: Sequence[int]) -> dict[int, TrainedHead]:
        if not rows:
            return {}
        ended = {}
        for member in (self._members[row] for row in rows):
            assert member.best_head is not None
            ended[member.place] = TrainedHead(
                config=member.job.config,
                seed=member.job.seed,
                validation_mae=member.best,
                epochs=member.best_epoch,
                curve=tuple(member.curve),
                losses=tuple(member.losses),
                head=member.best_head,
            )
        kept = [row for row in range(len(self._members)) if row not in rows]
        self._members = [self._members[row] for row in kept]
        if self._heads is not None:
            self._heads.keep(kept)
        self._advance(len(ended))
        return ended

    def _descend(self, heads: StackedHeads) -> list[float]:
        """One epoch; the mean loss of each head."""
        data, seeds = self._data, [member.job.seed for member in self._members]
        n_images, size = len(data.fit), self._plan.batch_size
        streams = {seed: self._streams[seed] for seed in seeds}
        orders = [stream.minibatches(n_images, size) for stream in streams.values()]
        n_steps = math.ceil(n_images / size)
        total, n_known = (torch.zeros(len(seeds), device=data.device) for _ in range(2))
        for step, batches in enumerate(zip(*orders, strict=True)):
            batch_of = dict(zip(streams, batches, strict=True))
            images = torch.stack([batch_of[seed] for seed in seeds]).to(data.device)
            places = data.fit[images]
            inputs = [_take(data.inputs[place], places) for place in self._layers]
            if self._noise:
                for x in inputs:
                    drawn = {seed: stream.noise(*x.shape[1:]) for seed, stream in streams.items()}
                    noise = torch.stack([drawn[seed] for seed in seeds])
                    x.add_(noise.to(data.device), alpha=self._noise)
            recorded = _take(data.targets, places)
            known = (~torch.isnan(recorded)).float()
            rates = heads.forward(inputs, self._dropout(heads, images.shape[1], seeds, streams))
            error = (rates - torch.nan_to_num(recorded)) * known
            loss = self._loss(error).sum(dim=(1, 2))
            (loss / known.sum(dim=(1, 2)).clamp(min=1)).sum().backward()
            heads.update(self._part(self._epoch - 1 + step / n_steps))
            total += loss.detach()
            n_known += known.sum(dim=(1, 2))
        losses: list[float] = (total / n_known.clamp(min=1)).tolist()
        return losses

    def _dropout(
        self,
        heads: StackedHeads,
        n_images: int,
        seeds: Sequence[int],
        streams: Mapping[int, RandomStreams],
    ) -> Dropout | None:
        rates = torch.tensor([member.job.config.dropout for member in self._members])[:, None, None]
        if not rates.any():
            return None
        widths = heads.dropout_widths
        drawn = {seed: stream.uniform(n_images, sum(widths)) for seed, stream in streams.items()}
        kept = torch.stack([drawn[seed] for seed in seeds]).ge(rates)
        factors = (kept / (1 - rates)).to(self._data.device)
        return Dropout(*factors.split(widths, dim=2))

    def _part(self, epochs: float) -> float:
        """What the learning rates are multiplied by after so many epochs."""
        if self._plan.schedule == "constant":
            return 1.0
        return (1 + math.cos(math.pi * epochs / self._plan.max_epochs)) / 2

    @torch.no_grad()
    def _validate(self, heads: StackedHeads) -> list[float]:
        n_heads = len(self._members)
        seen = [self._data.inputs[place] for place in self._layers]
        rates = [
            heads.forward([x[block].expand(n_heads, -1, *x.shape[1:]) for x in seen])
            for block in self._data.validation.split(_BLOCK)
        ]
        maes: list[float] = self._data.validation_mae(torch.cat(rates, dim=1)).tolist()
        return maes


def _take(of_images: Tensor | RowsOnDisk, images: Tensor) -> Tensor:
    """The rows of some images for each head: (C, batch, ...); ``images`` is (C, batch)."""
    rows: Tensor = of_images[images.ravel()]
    return rows.view(*images.shape, *of_images.shape[1:])
