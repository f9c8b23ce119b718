"""NRP heads of one shape that train side by side, with autograd and PyTorch's fused AdamW.

A head of a search is too small to keep a processor busy, so several are computed as one: the first
axis of every parameter and of every activation is the head, and a layer of all heads is one
`torch.bmm`.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.adamw import adamw

from nrp_onnx.predictor.head import NrpHead

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
class HeadShape:
    """Sizes of an NRP head: features of each layer, units of NRP-L1 and NRP-L2, sites."""

    n_inputs: tuple[int, ...]
    l1: int
    l2: int
    n_sites: int

    def empty_head(self) -> NrpHead:
        """A head whose parameters have shapes and no values; it draws no random numbers."""
        with torch.device("meta"):
            return NrpHead(self.n_inputs, self.l1, self.l2, self.n_sites)

    def initial_head(self, seed: int) -> NrpHead:
        """The head that `NrpHead` gives after ``torch.manual_seed(seed)``.

        PyTorch's global generator is not touched: threads and the user's own code share it.
        """
        generator = torch.Generator().manual_seed(seed)
        head = self.empty_head().to_empty(device="cpu")
        for layer in head.modules():
            if isinstance(layer, nn.Linear):
                bound = 1 / math.sqrt(layer.in_features)
                nn.init.kaiming_uniform_(layer.weight, a=math.sqrt(5), generator=generator)
                nn.init.uniform_(layer.bias, -bound, bound, generator=generator)
        return head

    def head(self, state: Mapping[str, Tensor]) -> NrpHead:
        """The head with these parameters."""
        head = self.empty_head()
        head.load_state_dict(state, assign=True)
        return head.eval()


@dataclass(frozen=True)
class Dropout:
    """What the outputs of NRP-L1 (C, batch, units) and NRP-L2 are multiplied by."""

    l1: Tensor
    l2: Tensor


class DenseHeads:
    """C heads of one shape.

    Args:
        shape: of every head.
        seeds: of the initial parameters, one a head.
        learning_rates, weight_decays: one a head; the decay is decoupled and spares the biases.

    Attributes:
        parameters: by their names in `NrpHead`: weights float32 (C, inputs, outputs), biases
            float32 (C, 1, outputs).
    """

    def __init__(
        self,
        shape: HeadShape,
        seeds: Sequence[int],
        learning_rates: Sequence[float],
        weight_decays: Sequence[float],
    ) -> None:
        self._shape = shape
        self._rates = list(zip(learning_rates, weight_decays, strict=True))
        heads = {seed: shape.initial_head(seed).state_dict() for seed in seeds}
        self.parameters = {
            name: torch.stack([_of_stack(heads[seed][name]) for seed in seeds]).requires_grad_()
            for name in heads[seeds[0]]
        }
        self._means = {name: torch.zeros_like(p) for name, p in self.parameters.items()}
        self._squares = {name: torch.zeros_like(p) for name, p in self.parameters.items()}
        self._n_steps = 0.0

    def forward(self, inputs: Sequence[Tensor], dropout: Dropout | None = None) -> Tensor:
        """Rates, (C, batch, sites).

        Args:
            inputs: a tensor (C, batch, features) for each layer.
        """
        local = [self._dense(f"l1.{place}", x) for place, x in enumerate(inputs)]
        l1 = torch.cat(local, dim=2).relu()
        if dropout is not None:
            l1 = l1 * dropout.l1
        l2 = self._dense("l2", l1).relu()
        if dropout is not None:
            l2 = l2 * dropout.l2
        return self._dense("out", l2)

    def _dense(self, name: str, x: Tensor) -> Tensor:
        p = self.parameters
        return torch.baddbmm(p[f"{name}.bias"], x, p[f"{name}.weight"])

    @torch.no_grad()
    def update(self, part: float = 1.0) -> None:
        """One step of AdamW with PyTorch's defaults; uses up the gradients.

        Args:
            part: by which the learning rates are multiplied.
        """
        gradients = {n: p.grad for n, p in self.parameters.items() if p.grad is not None}
        for (rate, decay), rows in _runs(self._rates):
            for kind, own_decay in (("weight", decay), ("bias", 0.0)):
                names = [name for name in gradients if name.endswith(kind)]
                adamw(
                    [self.parameters[name][rows] for name in names],
                    [gradients[name][rows] for name in names],
                    [self._means[name][rows] for name in names],
                    [self._squares[name][rows] for name in names],
                    [],
                    [torch.tensor(self._n_steps) for _ in names],
                    fused=True,
                    amsgrad=False,
                    beta1=0.9,
                    beta2=0.999,
                    lr=part * rate,
                    weight_decay=own_decay,
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

    def state(self, row: int) -> dict[str, Tensor]:
        """A copy of one head's parameters, as `HeadShape.head` takes them."""
        return {
            name: p.detach()[row].T.clone(memory_format=torch.contiguous_format)
            if name.endswith("weight")
            else p.detach()[row, 0].clone()
            for name, p in self.parameters.items()
        }


def _of_stack(parameter: Tensor) -> Tensor:
    """One head's weight (outputs, inputs) or bias (outputs,) in the layout of `DenseHeads`.

    Products and their gradients then need no transposed copy.
    """
    return parameter.T if parameter.ndim == 2 else parameter[None]


def _runs(values: Sequence[tuple[float, float]]) -> Iterator[tuple[tuple[float, float], slice]]:
    """Values that follow each other and are equal, and the slice of their places."""
    start = 0
    for value, run in groupby(values):
        stop = start + len(list(run))
        yield value, slice(start, stop)
        start = stop
