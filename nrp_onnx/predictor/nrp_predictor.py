"""What a search ends with: NRP heads whose rates are averaged, and a linear path beside them.

Heads of one shape whose rates are averaged are one NRP network: NRP-L1 and NRP-L2 as wide as all of
theirs together, NRP-L2 without weights from one head to another.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from nrp_onnx.predictor.head import NrpHead
from nrp_onnx.predictor.linear_path import LinearPath


@dataclass(frozen=True, eq=False)
class NrpPredictor:
    """Rates = (1 - share) * mean of the heads + share * linear path, at each site.

    Attributes:
        layers: places of the candidate layers that the heads see.
        heads: of one shape.
        linear: None where no site has a share of it.
        share: of the linear path, float64 (n_sites,), from 0 to 1.
    """

    layers: tuple[int, ...]
    heads: tuple[NrpHead, ...]
    linear: LinearPath | None
    share: np.ndarray

    def rates(self, inputs: Sequence[Tensor], images: np.ndarray) -> np.ndarray:
        """Rates in the targets' units, float64 (k, n_sites).

        Args:
            inputs: coordinates of all images in each candidate layer, float32 (n_images, r).
            images: places of k images.
        """
        rates = mean_rates(self.heads, [inputs[place] for place in self.layers], images)
        if self.linear is None:
            return rates
        mixed: np.ndarray = rates + self.share * (self.linear.rates[images] - rates)
        return mixed


def mean_rates(
    heads: Sequence[NrpHead], inputs: Sequence[Tensor], images: np.ndarray
) -> np.ndarray:
    """Rates of heads on the same layers, averaged: float64 (k, n_sites)."""
    chosen = [x[torch.from_numpy(images)] for x in inputs]
    with torch.no_grad():
        rates: np.ndarray = torch.stack([head(chosen).double() for head in heads]).mean(0).numpy()
    return rates
