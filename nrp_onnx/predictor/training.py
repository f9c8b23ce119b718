"""Trains many NRP heads on the same inputs at once: early stopping each, successive halving.

The paper trains with mean squared error and Adam and validates on a held-out set; the other losses,
dropout, weight decay (Loshchilov & Hutter 2019) and input noise are choices of a search. Successive
halving: Jamieson & Talwalkar (2016).
"""

import math
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from nrp_onnx.predictor.job import Job, TrainedHead, TrainingPlan
from nrp_onnx.predictor.stack_training import StackTraining, stack_key
from nrp_onnx.predictor.training_data import TrainingData

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
