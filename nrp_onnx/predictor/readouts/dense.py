"""Dense readouts: many NRP heads of one shape trained as one.

A head of a search is too small to keep a processor busy: what is written once for each tensor of
each head (autograd, the optimiser, the interpreter) costs more than the arithmetic. Here every
operation takes all heads of the stack along a leading axis, and one head's parameters are one row
of ``values``, so that Adam, a snapshot of the best epoch and the removal of heads that stopped are
operations on rows.

A head's numbers do not depend, to the last bit on a CPU, on which others are in the stack: its
parameters, and its part of every product, begin at a multiple of 64 bytes, as those of a head alone
do. Where they begin decides how a product of matrices is summed, and training would amplify that.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.adamw import adamw

from nrp_onnx.predictor.head import NrpHead

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


#: Numbers of float32 in 64 bytes.
_ALIGNED = 16


@dataclass(frozen=True)
class HeadShape:
    """Sizes of an NRP head: features of each layer, units of NRP-L1 and NRP-L2, sites."""

    n_inputs: tuple[int, ...]
    l1: int
    l2: int
    n_sites: int

    def parameters(self) -> list[tuple[str, tuple[int, ...]]]:
        """Names and shapes as in `NrpHead`, in the order of a row: weights first, then biases."""
        joined = self.l1 * len(self.n_inputs)
        weights: list[tuple[str, tuple[int, ...]]] = [
            *((f"l1.{place}.weight", (self.l1, n)) for place, n in enumerate(self.n_inputs)),
            ("l2.weight", (self.l2, joined)),
            ("out.weight", (self.n_sites, self.l2)),
        ]
        return weights + [(name.replace("weight", "bias"), (shape[0],)) for name, shape in weights]

    @property
    def n_weights(self) -> int:
        """Parameters that are weights and not biases."""
        n_inputs = sum(self.n_inputs)
        return self.l1 * n_inputs + self.l2 * (self.l1 * len(self.n_inputs) + self.n_sites)

    def initial_row(self, seed: int) -> Tensor:
        """The parameters of a new head and zeros up to a multiple of 64 bytes, float32 (P,).

        They are those that `NrpHead` has after ``torch.manual_seed(seed)``, but drawn without
        PyTorch's generator, which threads share.
        """
        generator = torch.Generator().manual_seed(seed)
        drawn: dict[str, Tensor] = {}
        for name, shape in self.parameters():
            if name.endswith("weight"):
                weight, bias = torch.empty(shape), torch.empty(shape[0])
                nn.init.kaiming_uniform_(weight, a=math.sqrt(5), generator=generator)
                bound = 1 / math.sqrt(shape[1])
                nn.init.uniform_(bias, -bound, bound, generator=generator)
                drawn |= {name: weight, name.replace("weight", "bias"): bias}
        row = torch.cat([drawn[name].ravel() for name, _ in self.parameters()])
        return F.pad(row, (0, -len(row) % _ALIGNED))

    def head(self, row: Tensor) -> NrpHead:
        """The head whose parameters are a row."""
        shapes = self.parameters()
        sizes = [torch.Size(shape).numel() for _, shape in shapes]
        parts = row.cpu()[: sum(sizes)].split(sizes)
        # Built without weights of its own: its initialisation would be thrown away.
        with torch.device("meta"):
            head = NrpHead(self.n_inputs, self.l1, self.l2, self.n_sites)
        state = {
            name: part.view(shape).clone()
            for (name, shape), part in zip(shapes, parts, strict=True)
        }
        head.load_state_dict(state, assign=True)
        return head.eval()


@dataclass(frozen=True)
class _Views:
    """The tensors of all heads in the rows of a matrix; b1 joins the biases of all layers."""

    w1: list[Tensor]
    w2: Tensor
    w3: Tensor
    b1: Tensor
    b2: Tensor
    b3: Tensor


@dataclass(frozen=True)
class Activity:
    """What `HeadStack.forward` computed: the rates, and for the gradient the layers before them.

    ``l1`` is (C, batch, layers * units), ``l2`` (C, batch, units), ``rates`` (C, batch, sites).
    """

    l1: Tensor
    l2: Tensor
    rates: Tensor


@dataclass(frozen=True)
class Group:
    """Heads of a stack that see the same inputs: their rows, one tensor (batch, features) a layer."""

    rows: slice
    inputs: Sequence[Tensor]


class HeadStack:
    """C heads of one shape that train side by side.

    Args:
        shape: of every head.
        values: float32 (C, P), a head's parameters in each row.
        learning_rates, weight_decays: of each head; decay is decoupled and spares the biases.
    """

    def __init__(
        self,
        shape: HeadShape,
        values: Tensor,
        learning_rates: Sequence[float],
        weight_decays: Sequence[float],
    ) -> None:
        self.shape = shape
        self._rates = list(zip(learning_rates, weight_decays, strict=True))
        self._step = 0.0
        self._hold(values, torch.zeros_like(values), torch.zeros_like(values))

    def __len__(self) -> int:
        return len(self.values)

    def _hold(self, values: Tensor, mean: Tensor, square: Tensor) -> None:
        self.values, self._mean, self._square = values, mean, square
        self._gradient = torch.zeros_like(values)
        self._parameters, self._gradients = self._views(values), self._views(self._gradient)
        self._updates = self._adam_groups()

    def _views(self, matrix: Tensor) -> _Views:
        shape, n_layers = self.shape, len(self.shape.n_inputs)
        sizes = [torch.Size(part).numel() for _, part in shape.parameters()]
        starts = list(accumulate(sizes, initial=0))
        weights = [
            matrix[:, start : start + size].view(len(matrix), *part)
            for start, size, (_, part) in zip(starts, sizes, shape.parameters(), strict=False)
        ][: n_layers + 2]
        widths = [shape.l1 * n_layers, shape.l2, shape.n_sites]
        start = shape.n_weights
        biases = matrix[:, start : start + sum(widths)].split(widths, dim=1)
        return _Views(weights[:n_layers], weights[n_layers], weights[n_layers + 1], *biases)

    def _adam_groups(self) -> "list[_AdamGroup]":
        n_weights = self.shape.n_weights
        parts: dict[tuple[float, float], list[tuple[int, slice]]] = {}
        for row, (rate, decay) in enumerate(self._rates):
            if decay:
                parts.setdefault((rate, decay), []).append((row, slice(n_weights)))
                parts.setdefault((rate, 0.0), []).append((row, slice(n_weights, None)))
            else:
                parts.setdefault((rate, 0.0), []).append((row, slice(None)))

        def cut(matrix: Tensor, places: list[tuple[int, slice]]) -> list[Tensor]:
            return [matrix[row, part] for row, part in places]

        return [
            _AdamGroup(
                rate,
                decay,
                values=cut(self.values, places),
                gradients=cut(self._gradient, places),
                means=cut(self._mean, places),
                squares=cut(self._square, places),
                steps=[self.values.new_full((), self._step) for _ in places],
            )
            for (rate, decay), places in parts.items()
        ]

    def _empty(self, n_images: int, biases: Tensor) -> Tensor:
        """Room for outputs of a layer, (C, n_images, units)."""
        padded = n_images + -n_images % _ALIGNED
        return self.values.new_empty(len(self), padded, biases.shape[1])[:, :n_images]

    def keep(self, rows: Sequence[int]) -> None:
        """Remove all heads but these."""
        index = torch.tensor(rows, dtype=torch.long, device=self.values.device)
        self._rates = [self._rates[row] for row in rows]
        self._hold(self.values[index], self._mean[index], self._square[index])

    def forward(self, groups: Sequence[Group], dropout: "Dropout | None" = None) -> Activity:
        """The rates of every head for the inputs of its group."""
        p, width = self._parameters, self.shape.l1
        n_images = len(groups[0].inputs[0])
        l1 = self._empty(n_images, p.b1)
        for group in groups:
            for place, x in enumerate(group.inputs):
                weights = p.w1[place][group.rows].transpose(1, 2)
                part = l1[group.rows, :, place * width : (place + 1) * width]
                torch.bmm(x.expand(len(weights), *x.shape), weights, out=part)
        l1.add_(p.b1[:, None]).relu_()
        if dropout is not None:
            l1.mul_(dropout.l1)
        l2 = self._empty(n_images, p.b2)
        torch.bmm(l1, p.w2.transpose(1, 2), out=l2).add_(p.b2[:, None]).relu_()
        if dropout is not None:
            l2.mul_(dropout.l2)
        rates = self._empty(n_images, p.b3)
        torch.bmm(l2, p.w3.transpose(1, 2), out=rates).add_(p.b3[:, None])
        return Activity(l1, l2, rates)

    def backward(
        self,
        groups: Sequence[Group],
        found: Activity,
        slope: Tensor,
        dropout: "Dropout | None" = None,
    ) -> None:
        """The gradient of the losses, from their slope in the rates, (C, batch, sites)."""
        p, g, width = self._parameters, self._gradients, self.shape.l1
        n_images = slope.shape[1]
        torch.bmm(slope.transpose(1, 2), found.l2, out=g.w3)
        torch.sum(slope, 1, out=g.b3)
        # A unit passes its slope on where its output is above 0; what dropout kept, it scaled.
        slope = torch.bmm(slope, p.w3, out=self._empty(n_images, p.b2)).mul_(found.l2 > 0)
        if dropout is not None:
            slope.mul_(dropout.scale)
        torch.bmm(slope.transpose(1, 2), found.l1, out=g.w2)
        torch.sum(slope, 1, out=g.b2)
        slope = torch.bmm(slope, p.w2, out=self._empty(n_images, p.b1)).mul_(found.l1 > 0)
        if dropout is not None:
            slope.mul_(dropout.scale)
        torch.sum(slope, 1, out=g.b1)
        for group in groups:
            for place, x in enumerate(group.inputs):
                part = slope[group.rows, :, place * width : (place + 1) * width].transpose(1, 2)
                weights = g.w1[place][group.rows]
                torch.bmm(part, x.expand(len(weights), *x.shape), out=weights)

    def update(self, part: float = 1.0) -> None:
        """One step of AdamW with PyTorch's defaults, each head at its own learning rate and decay.

        Args:
            part: of the learning rates, by which this step goes.
        """
        self._step += 1
        for group in self._updates:
            adamw(
                group.values,
                group.gradients,
                group.means,
                group.squares,
                [],
                group.steps,
                fused=True,
                amsgrad=False,
                beta1=0.9,
                beta2=0.999,
                lr=part * group.learning_rate,
                weight_decay=group.weight_decay,
                eps=1e-8,
                maximize=False,
            )


@dataclass(frozen=True)
class _AdamGroup:
    """Parts of rows that share a learning rate and a decay, with their state of Adam."""

    learning_rate: float
    weight_decay: float
    values: list[Tensor]
    gradients: list[Tensor]
    means: list[Tensor]
    squares: list[Tensor]
    steps: list[Tensor]


@dataclass(frozen=True)
class Dropout:
    """Inverted dropout: what the outputs of NRP-L1 and NRP-L2 are multiplied by, 0 or ``scale``.

    ``l1`` and ``l2`` are (C, batch, units), ``scale`` (C, 1, 1).
    """

    l1: Tensor
    l2: Tensor
    scale: Tensor
