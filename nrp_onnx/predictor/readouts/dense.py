"""The readout of the paper: NRP-L1 is dense over all features of a layer, NRP-L2 over all layers.

A layer of all heads of a stack is one `torch.bmm`.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from nrp_onnx.predictor.head import NrpHead
from nrp_onnx.predictor.readouts.stacked import Dropout, StackedHeads


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


class DenseHeads(StackedHeads):
    """C dense heads.

    Args:
        shape: of every head.
        seeds: of the initial parameters, one a head.
        learning_rates, weight_decays, device: see `StackedHeads`.

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
        device: torch.device | None = None,
    ) -> None:
        self._shape = shape
        self.dropout_widths = shape.l1 * len(shape.n_inputs), shape.l2
        initial = {seed: shape.initial_head(seed).state_dict() for seed in seeds}
        states = [{name: _of_stack(p) for name, p in initial[seed].items()} for seed in seeds]
        super().__init__(states, learning_rates, weight_decays, device)

    def forward(self, inputs: Sequence[Tensor], dropout: Dropout | None = None) -> Tensor:
        """Rates, (C, batch, sites), from a tensor (C, batch, features) for each layer."""
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

    def head(self, row: int) -> NrpHead:
        """A copy of one head as it is now."""
        return self._shape.head(
            {
                name: p.detach()[row].cpu().T.clone(memory_format=torch.contiguous_format)
                if name.endswith("weight")
                else p.detach()[row, 0].cpu().clone()
                for name, p in self.parameters.items()
            }
        )


def _of_stack(parameter: Tensor) -> Tensor:
    """One head's weight (outputs, inputs) or bias (outputs,) in the layout of `DenseHeads`.

    Products and their gradients then need no transposed copy.
    """
    return parameter.T if parameter.ndim == 2 else parameter[None]
