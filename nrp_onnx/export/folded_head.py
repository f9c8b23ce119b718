"""A fitted head as plain arrays on activations: basis, means and units folded into its weights."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nrp_onnx.activations.layer_activations import LayerActivations
from nrp_onnx.predictor.basis import Basis
from nrp_onnx.predictor.job import TrainedHead


@dataclass(frozen=True)
class FoldedHead:
    """Weights of y = W x + b for each dense layer.

    Attributes:
        means: for each layer of the backbone, what is taken from its activations first, float32
            (D,): folded into b as well, activations that hardly differ would cancel to nothing.
        l1: for each layer W (units, D) and b (units,), on its activations less their mean.
        l2, out: W and b; ``out`` gives rates in the recordings' own units.
    """

    means: list[np.ndarray]
    l1: list[tuple[np.ndarray, np.ndarray]]
    l2: tuple[np.ndarray, np.ndarray]
    out: tuple[np.ndarray, np.ndarray]


def fold_head(
    trained: TrainedHead,
    bases: Sequence[Basis],
    activations: Sequence[LayerActivations],
    offset: np.ndarray,
    scale: np.ndarray,
) -> FoldedHead:
    """Fold what stands around a head into its first and last weights.

    With coordinates c = (x - mean) V, NRP-L1 is W c + b = (W V^T) (x - mean) + b; with
    rates = out * scale + offset, the scale and the offset go into NRP-out.

    Args:
        bases, activations: of the layers that the head uses, in its order.
        offset, scale: float arrays (n_sites,) from the head's targets to the recordings' units.
    """
    weights = {
        name: tensor.numpy().astype(np.float64)
        for name, tensor in trained.head.state_dict().items()
    }
    l1, means = [], []
    for place, (basis, x) in enumerate(zip(bases, activations, strict=True)):
        folded, mean = basis.fold(weights[f"l1.{place}.weight"], x)
        means.append(mean.astype(np.float32))
        l1.append((folded, weights[f"l1.{place}.bias"] - folded @ (mean - means[-1])))
    return FoldedHead(
        means=means,
        l1=l1,
        l2=(weights["l2.weight"], weights["l2.bias"]),
        out=(weights["out.weight"] * scale[:, None], weights["out.bias"] * scale + offset),
    )
