"""The random numbers of heads that share a seed: one stream for each purpose."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

_ORDER, _NOISE, _DROPOUT = range(3)


class RandomStreams:
    """Minibatches, input noise and dropout of a seed.

    Each purpose has a generator of its own, so that a head's minibatches are the same whether or
    not noise is drawn.
    """

    def __init__(self, seed: int, device: torch.device) -> None:
        self._order = _generator(seed, _ORDER, torch.device("cpu"))
        self._noise = _generator(seed, _NOISE, device)
        self._dropout = _generator(seed, _DROPOUT, device)
        self._device = device

    def minibatches(self, n_images: int, size: int) -> Iterator[Tensor]:
        """All images once, in a new order."""
        order = torch.randperm(n_images, generator=self._order).to(self._device)
        return iter(order.split(size))

    def noise_like(self, x: Tensor) -> Tensor:
        """Standard normal numbers in the shape of ``x``."""
        return torch.randn(x.shape, generator=self._noise, device=self._device)

    def uniform(self, *shape: int) -> Tensor:
        """Numbers from 0 to 1 that decide what dropout drops."""
        return torch.rand(shape, generator=self._dropout, device=self._device)


def _generator(seed: int, purpose: int, device: torch.device) -> torch.Generator:
    state = np.random.SeedSequence((seed, purpose)).generate_state(1, np.uint64)
    return torch.Generator(device).manual_seed(int(state[0] >> np.uint64(1)))
