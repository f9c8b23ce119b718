"""The neural response predictor of Anand, Sen & Roy (2021), section "Methods".

Selected layers -> NRP-L1, one dense layer with ReLU for each -> concatenate -> NRP-L2, dense with
ReLU -> NRP-out, linear, one output a site. The backbone is frozen: the inputs are its activations.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class NrpHead(nn.Module):
    """The NRP network on the activations (or their coordinates) of some layers.

    Args:
        n_inputs: features of each layer.
        l1: units of NRP-L1, for each layer.
        l2: units of NRP-L2.
        n_sites: outputs of NRP-out.
    """

    def __init__(self, n_inputs: Sequence[int], l1: int, l2: int, n_sites: int) -> None:
        super().__init__()
        self.l1 = nn.ModuleList(nn.Linear(n, l1) for n in n_inputs)
        self.l2 = nn.Linear(l1 * len(n_inputs), l2)
        self.out = nn.Linear(l2, n_sites)

    def forward(self, inputs: Sequence[Tensor]) -> Tensor:
        """Rates, shape (batch, n_sites), from one tensor (batch, features) a layer."""
        local = [torch.relu(layer(x)) for layer, x in zip(self.l1, inputs, strict=True)]
        rates: Tensor = self.out(torch.relu(self.l2(torch.cat(local, dim=1))))
        return rates
