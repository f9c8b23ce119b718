"""Heads of one shape that train side by side: their random numbers and PyTorch's fused AdamW.

A small head does not keep a processor busy, so several are computed as one: the first axis of every
parameter and of every activation is the head.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.adamw import adamw

_ORDER, _NOISE, _DROPOUT = range(3)


class RandomStreams:
    """The random numbers of one seed: minibatches, input noise and dropout.

    Each purpose has its own generator, so the minibatches of a head are the same with and without
    noise.
    """

    def __init__(self, seed: int) -> None:
        self._order, self._noise, self._dropout = (
            _generator(seed, purpose) for purpose in (_ORDER, _NOISE, _DROPOUT)
        )

    def minibatches(self, n_images: int, size: int) -> Iterator[Tensor]:
        """Places of all images once, in a new order, ``size`` at a time."""
        return iter(torch.randperm(n_images, generator=self._order).split(size))

    def noise(self, *shape: int) -> Tensor:
        """Standard normal numbers."""
        return torch.randn(shape, generator=self._noise)

    def uniform(self, *shape: int) -> Tensor:
        """Numbers from 0 to 1; dropout drops the outputs whose number is below its rate."""
        return torch.rand(shape, generator=self._dropout)


def _generator(seed: int, purpose: int) -> torch.Generator:
    state = np.random.SeedSequence((seed, purpose)).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(state[0] >> np.uint64(1)))


@dataclass(frozen=True)
class Dropout:
    """What the outputs of NRP-L1 (C, batch, units) and NRP-L2 are multiplied by."""

    l1: Tensor
    l2: Tensor


class StackedHeads(ABC):
    """C heads of one shape, with their optimiser.

    Args:
        states: the initial parameters of each head, by name.
        learning_rates, weight_decays: one a head; the decay is decoupled and is of the parameters
            whose names end in ``weight``.
        device: of the parameters. Random numbers are drawn on the CPU whatever it is.

    Attributes:
        parameters: of all heads, by name, each (C, ...).
        dropout_widths: units of NRP-L1 and of NRP-L2 that dropout may drop.
    """

    #: By which the learning rates are multiplied, by the end of a parameter's name; else by 1.
    rate_factors: ClassVar[dict[str, float]] = {}
    dropout_widths: tuple[int, int]

    def __init__(
        self,
        states: Sequence[dict[str, Tensor]],
        learning_rates: Sequence[float],
        weight_decays: Sequence[float],
        device: torch.device | None = None,
    ) -> None:
        self._rates = list(zip(learning_rates, weight_decays, strict=True))
        self.parameters = {
            name: torch.stack([state[name] for state in states]).to(device).requires_grad_()
            for name in states[0]
        }
        self._means = {name: torch.zeros_like(p) for name, p in self.parameters.items()}
        self._squares = {name: torch.zeros_like(p) for name, p in self.parameters.items()}
        self._n_steps = 0.0

    @abstractmethod
    def forward(self, inputs: Sequence[Tensor], dropout: Dropout | None = None) -> Tensor:
        """Rates, (C, batch, sites), from a tensor (C, batch, ...) for each layer."""

    @abstractmethod
    def head(self, row: int) -> nn.Module:
        """A copy of one head as it is now."""

    @torch.no_grad()
    def update(self, part: float = 1.0) -> None:
        """One step of AdamW with PyTorch's defaults; uses up the gradients.

        Args:
            part: by which the learning rates are multiplied.
        """
        gradients = {n: p.grad for n, p in self.parameters.items() if p.grad is not None}
        groups: dict[tuple[float, bool], list[str]] = {}
        for name in gradients:
            kind = name.rpartition(".")[2]
            key = self.rate_factors.get(kind, 1.0), kind == "weight"
            groups.setdefault(key, []).append(name)
        for (rate, decay), rows in _runs(self._rates):
            for (factor, decays), names in groups.items():
                adamw(
                    [self.parameters[name][rows] for name in names],
                    [gradients[name][rows] for name in names],
                    [self._means[name][rows] for name in names],
                    [self._squares[name][rows] for name in names],
                    [],
                    [
                        torch.tensor(self._n_steps, device=self.parameters[name].device)
                        for name in names
                    ],
                    fused=True,
                    amsgrad=False,
                    beta1=0.9,
                    beta2=0.999,
                    lr=part * factor * rate,
                    weight_decay=decay if decays else 0.0,
                    eps=1e-8,
                    maximize=False,
                )
        self._n_steps += 1
        for parameter in self.parameters.values():
            parameter.grad = None

    def keep(self, rows: list[int]) -> None:
        """Remove all heads but these."""
        self._rates = [self._rates[row] for row in rows]
        self.parameters = {
            name: p.detach()[rows].requires_grad_() for name, p in self.parameters.items()
        }
        self._means = {name: mean[rows] for name, mean in self._means.items()}
        self._squares = {name: square[rows] for name, square in self._squares.items()}


def _runs(values: Sequence[tuple[float, float]]) -> Iterator[tuple[tuple[float, float], slice]]:
    """Values that follow each other and are equal, and the slice of their places."""
    start = 0
    for value, run in groupby(values):
        stop = start + len(list(run))
        yield value, slice(start, stop)
        start = stop
