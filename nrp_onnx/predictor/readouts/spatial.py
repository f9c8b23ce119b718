"""The readout that sees where: NRP-L1 at every position, then a mask over positions for each site.

After Klindt et al. (2017), "Neural system identification for large populations separating 'what' and
'where'", section 3, and Lurz et al. (2021), "Generalization in data-driven models of primary visual
cortex", section 3.3: the weights of a site factorise into a mask over positions and weights over
units. Here NRP-L1 is one dense layer with ReLU for each backbone layer, as in the paper, but it sees
one position at a time and is the same at all of them.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from nrp_onnx.predictor.readouts.stacked import Dropout, StackedHeads

#: What the mask of a site may be: a Gaussian with learned centre and width, or that times free
#: weights of all positions.
MASKS = ("gaussian", "free")
#: Standard deviations of the first centres, and the first width; the image reaches from -1 to 1.
_CENTRES, _WIDTH = 0.09, 0.43
#: A mask has few parameters that each image moves a little, so it takes larger steps.
_MASK_RATE = 3.0

Grid = tuple[int, int]


def positions(grid: Grid) -> Tensor:
    """Centres of the cells of a grid, row by row: float32 (P, 2), y and x from -1 to 1."""
    y, x = ((torch.arange(n) + 0.5) * 2 / n - 1 for n in grid)
    return torch.stack(torch.meshgrid(y, x, indexing="ij"), dim=-1).reshape(-1, 2)


@dataclass(frozen=True)
class SpatialShape:
    """Sizes of spatial heads.

    Attributes:
        grids: height and width of each layer; (1, 1) for a layer without positions.
        n_inputs: channels of each layer.
        l1: units of NRP-L1, for each layer.
        n_sites: outputs.
        mask: one of `MASKS`.
        components: masks of each site, each with its own weights over units.
    """

    grids: tuple[Grid, ...]
    n_inputs: tuple[int, ...]
    l1: int
    n_sites: int
    mask: str = "gaussian"
    components: int = 1

    def initial_state(self, seed: int) -> dict[str, Tensor]:
        """Initial parameters; PyTorch's global generator is not touched."""
        generator = torch.Generator().manual_seed(seed)

        def normal(*shape: int) -> Tensor:
            return torch.randn(shape, generator=generator)

        state = {}
        for place, n in enumerate(self.n_inputs):
            bound = 1 / math.sqrt(n)
            for name, shape in (("weight", (n, self.l1)), ("bias", (1, self.l1))):
                drawn = torch.rand(shape, generator=generator)
                state[f"l1.{place}.{name}"] = (2 * drawn - 1) * bound
        masks = self.n_sites, self.components
        n_units = self.l1 * len(self.n_inputs)
        state["mask.centre"] = _CENTRES * normal(*masks, 2)
        state["mask.log_width"] = torch.full(masks, math.log(_WIDTH))
        if self.mask == "free":
            for place, (height, width) in enumerate(self.grids):
                if height * width > 1:
                    state[f"mask.{place}.free"] = torch.zeros(*masks, height * width)
        scale = 0.3 / math.sqrt(n_units * self.components)
        state["out.weight"] = scale * normal(*masks, n_units)
        state["out.bias"] = torch.zeros(1, self.n_sites)
        return state


class SpatialHead(nn.Module):
    """One spatial head, from one tensor (batch, P, channels) a layer to rates (batch, n_sites).

    Attributes:
        shape: its sizes.
        state: its parameters, by name.
    """

    def __init__(self, shape: SpatialShape, state: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.shape, self.state = shape, dict(state)

    def forward(self, inputs: Sequence[Tensor]) -> Tensor:
        """Rates, (batch, n_sites)."""
        stacked = {name: value[None] for name, value in self.state.items()}
        return factorised_rates(self.shape, stacked, [x[None] for x in inputs])[0]

    def masks(self, place: int) -> Tensor:
        """Masks of a layer, float32 (n_sites, components, P); each sums to 1."""
        stacked = {name: value[None] for name, value in self.state.items()}
        return masks_of(self.shape, stacked, place)[0]


def masks_of(shape: SpatialShape, parameters: Mapping[str, Tensor], place: int) -> Tensor:
    """Masks of a layer over its positions, (C, n_sites, components, P); each sums to 1."""
    centre = parameters["mask.centre"][..., None, :]
    where = positions(shape.grids[place]).to(centre.device)
    squares = (where - centre).square().sum(dim=-1)
    logits = squares * (-0.5 * torch.exp(-2 * parameters["mask.log_width"]))[..., None]
    free = parameters.get(f"mask.{place}.free")
    return (logits if free is None else logits + free).softmax(dim=-1)


def factorised_rates(
    shape: SpatialShape,
    parameters: Mapping[str, Tensor],
    inputs: Sequence[Tensor],
    dropout: Dropout | None = None,
) -> Tensor:
    """Rates of C heads, (C, batch, n_sites).

    The mask and the weights over units of a site are multiplied first: the readout of a layer is then
    one matrix product, and its cost is linear in images and in sites.

    Args:
        inputs: a tensor (C, batch, P, channels) for each layer.
    """
    # Sites come before images until the end: the gradients of all products then lie in memory as the
    # next product reads them, which halves the time of a step.
    rates = parameters["out.bias"].transpose(1, 2)
    weights = parameters["out.weight"].split(shape.l1, dim=-1)
    dropped = None if dropout is None else dropout.l1.split(shape.l1, dim=-1)
    for place, x in enumerate(inputs):
        n_heads, n_images, n_positions, n_channels = x.shape
        flat = x.reshape(n_heads, -1, n_channels)
        units = torch.baddbmm(
            parameters[f"l1.{place}.bias"], flat, parameters[f"l1.{place}.weight"]
        ).relu()
        if dropped is not None:
            apart = units.view(n_heads, n_images, n_positions, -1)
            units = apart * dropped[place][:, :, None]
        masks = masks_of(shape, parameters, place)
        of_sites = masks.transpose(2, 3) @ weights[place].contiguous()
        rates = torch.baddbmm(
            rates.expand(n_heads, -1, n_images),
            of_sites.reshape(n_heads, -1, n_positions * shape.l1),
            units.reshape(n_heads, n_images, -1).transpose(1, 2),
        )
    return rates.transpose(1, 2)


class SpatialHeads(StackedHeads):
    """C spatial heads.

    Args:
        shape: of every head.
        seeds: of the initial parameters, one a head.
        learning_rates, weight_decays, device: see `StackedHeads`.
    """

    rate_factors: ClassVar[dict[str, float]] = {
        "centre": _MASK_RATE,
        "log_width": _MASK_RATE,
        "free": _MASK_RATE,
    }

    def __init__(
        self,
        shape: SpatialShape,
        seeds: Sequence[int],
        learning_rates: Sequence[float],
        weight_decays: Sequence[float],
        device: torch.device | None = None,
    ) -> None:
        self._shape = shape
        self.dropout_widths = shape.l1 * len(shape.n_inputs), 0
        states = [shape.initial_state(seed) for seed in seeds]
        super().__init__(states, learning_rates, weight_decays, device)

    def forward(self, inputs: Sequence[Tensor], dropout: Dropout | None = None) -> Tensor:
        """Rates, (C, batch, sites), from a tensor (C, batch, P, channels) for each layer."""
        return factorised_rates(self._shape, self.parameters, inputs, dropout)

    def head(self, row: int) -> SpatialHead:
        """A copy of one head as it is now."""
        state = {name: p.detach()[row].cpu().clone() for name, p in self.parameters.items()}
        return SpatialHead(self._shape, state)
