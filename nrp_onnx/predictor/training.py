"""Trains one NRP head: mean squared error, Adam, early stopping on a held-out set, as in the paper."""

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from nrp_onnx.predictor.head import NrpHead


@dataclass(frozen=True)
class HeadConfig:
    """One point of the search: which layers (by place), sizes of NRP-L1 and NRP-L2, learning rate."""

    layers: tuple[int, ...]
    l1: int
    l2: int
    learning_rate: float


@dataclass(frozen=True)
class TrainingPlan:
    """What all configs of a search share."""

    max_epochs: int = 100
    patience: int = 10
    batch_size: int = 64


@dataclass(frozen=True)
class TrainedHead:
    """A head at its best epoch; ``validation_mae`` is the mean over regions, in target units."""

    head: NrpHead
    config: HeadConfig
    validation_mae: float
    epochs: int


@contextmanager
def one_torch_thread() -> Iterator[None]:
    """Use one thread of PyTorch while the block runs.

    The layers of a head are too small to share, and threads that wait for each other on a busy
    machine cost far more than they give; one thread also makes sums independent of the machine.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def region_mae(error: Tensor, regions: Sequence[Tensor]) -> float:
    """Mean over regions of the mean absolute error; ``error`` has NaN where nothing was recorded."""
    return float(torch.stack([error[:, sites].abs().nanmean() for sites in regions]).mean())


def train_head(
    inputs: Sequence[Tensor],
    targets: Tensor,
    fit: Tensor,
    validation: Tensor,
    regions: Sequence[Tensor],
    config: HeadConfig,
    plan: TrainingPlan,
    seed: int,
) -> TrainedHead:
    """Train a head on the images ``fit`` and keep the epoch with the least error on ``validation``.

    Args:
        inputs: one float32 tensor (n_images, features) for each candidate layer.
        targets: float32 tensor (n_images, n_sites), NaN = missing (left out of the loss).
        fit, validation: places of images.
        regions: places of the sites of each region.
        seed: of the initial weights and the order of the images.
    """
    chosen = [inputs[place] for place in config.layers]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        head = NrpHead([x.shape[1] for x in chosen], config.l1, config.l2, targets.shape[1])
    order = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.Adam(head.parameters(), lr=config.learning_rate, fused=True)
    x_fit, y_fit = [x[fit] for x in chosen], targets[fit]
    x_validation, y_validation = [x[validation] for x in chosen], targets[validation]
    there = ~torch.isnan(y_fit)
    y_filled = torch.nan_to_num(y_fit)
    best, best_state, best_epoch = float("inf"), copy.deepcopy(head.state_dict()), 0
    for epoch in range(1, plan.max_epochs + 1):
        for batch in torch.randperm(len(y_fit), generator=order).split(plan.batch_size):
            optimiser.zero_grad()
            error = (head([x[batch] for x in x_fit]) - y_filled[batch]) * there[batch]
            (error.square().sum() / there[batch].sum().clamp(min=1)).backward()
            optimiser.step()
        with torch.no_grad():
            mae = region_mae(head(x_validation) - y_validation, regions)
        if mae < best:
            best, best_state, best_epoch = mae, copy.deepcopy(head.state_dict()), epoch
        elif epoch - best_epoch >= plan.patience:
            break
    head.load_state_dict(best_state)
    return TrainedHead(head.eval(), config, best, best_epoch)
