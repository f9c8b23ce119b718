"""A fitted predictor as plain arrays on activations: basis, means and units folded into its weights."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from nrp_onnx.activations.layer_file import LayerActivations
from nrp_onnx.predictor.directions import Basis
from nrp_onnx.predictor.image_products import FEATURES_A_BLOCK
from nrp_onnx.predictor.nrp_predictor import NrpPredictor
from nrp_onnx.threads import map_on_cores

Dense = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class FoldedLayer:
    """What is computed from the activations of one layer; W and b of y = W x + b.

    Attributes:
        mean: what is taken from the activations first, float32 (D,): folded into b as well,
            activations that hardly differ would cancel to nothing.
        basis: (r, D), or None; the input of ``l1``, else the activations themselves.
        l1: W (C * units, r or D) and b (C * units,), those of the first head first; None where the
            heads do not see the layer.
        linear: (n_sites, D), of the linear path, in the recordings' units; None where there is none.
    """

    mean: np.ndarray
    basis: np.ndarray | None
    l1: Dense | None
    linear: np.ndarray | None


@dataclass(frozen=True)
class FoldedHead:
    """C heads as one NRP network, with its linear path.

    Attributes:
        layers: one for each layer that is used.
        n_heads: C.
        l2: W (C, units, L * units of NRP-L1) and b (C, units).
        out: W (n_sites, C * units) and b (n_sites,); it gives rates in the recordings' own units.
    """

    layers: list[FoldedLayer]
    n_heads: int
    l2: Dense
    out: Dense

    def rates(self, activations: Sequence[np.ndarray]) -> np.ndarray:
        """Rates in the recordings' own units, float64 (n_images, n_sites).

        Args:
            activations: of each layer, (n_images, D).
        """
        (l2_weight, l2_bias), (out_weight, out_bias) = self.l2, self.out
        local, rates = [], np.asarray(out_bias, np.float64)
        for layer, x in zip(self.layers, activations, strict=True):
            moved = x - layer.mean
            if layer.linear is not None:
                rates = rates + moved @ layer.linear.T
            if layer.l1 is not None:
                seen = moved if layer.basis is None else moved @ layer.basis.T
                units = np.maximum(seen @ layer.l1[0].T + layer.l1[1], 0)
                local.append(units.reshape(len(x), self.n_heads, -1))
        joined = np.concatenate(local, axis=2)
        hidden = np.maximum(np.einsum("ncu,chu->nch", joined, l2_weight) + l2_bias, 0)
        found: np.ndarray = rates + hidden.reshape(len(hidden), -1) @ out_weight.T
        return found


def used_layers(predictor: NrpPredictor, bases: Sequence[Basis]) -> list[int]:
    """Places of the candidate layers that the exported head needs, in the order of its inputs."""
    return sorted({*predictor.layers, *(_differing(bases) if predictor.linear else ())})


def _differing(bases: Sequence[Basis]) -> list[int]:
    """Places of the layers that the linear path sees."""
    return [place for place, basis in enumerate(bases) if basis.n_directions]


def fold_head(
    predictor: NrpPredictor,
    bases: Sequence[Basis],
    activations: Sequence[LayerActivations],
    offset: np.ndarray,
    scale: np.ndarray,
) -> FoldedHead:
    """Fold what stands around the heads into their first and last weights.

    With coordinates c = (x - mean) V, NRP-L1 is W c + b = (W V^T) (x - mean) + b; W and V are kept
    apart where they are smaller so. With rates = out * scale + offset, the scale and the offset go
    into NRP-out, and so do the mean over heads and the share of the linear path.

    Args:
        bases, activations: of all candidate layers.
        offset, scale: float arrays (n_sites,) from the targets to the recordings' units.
    """
    states = [
        {name: tensor.numpy().astype(np.float64) for name, tensor in head.state_dict().items()}
        for head in predictor.heads
    ]
    fold = partial(_fold_layer, predictor, states, bases, activations, scale)
    bytes_each = 16 * len(bases[0].coordinates) * FEATURES_A_BLOCK
    folded = map_on_cores(fold, used_layers(predictor, bases), bytes_each)
    at_mean = offset + sum(shift for _, shift in folded)
    from_heads = (1 - predictor.share) * scale
    if predictor.linear is not None:
        at_mean += predictor.share * predictor.linear.at_mean * scale
    out_bias = np.mean([state["out.bias"] for state in states], axis=0)
    out_weights = np.concatenate([state["out.weight"] for state in states], axis=1) / len(states)
    return FoldedHead(
        layers=[layer for layer, _ in folded],
        n_heads=len(states),
        l2=(
            np.stack([state["l2.weight"] for state in states]),
            np.stack([state["l2.bias"] for state in states]),
        ),
        out=(
            out_weights * from_heads[:, None],
            out_bias * from_heads + at_mean,
        ),
    )


def _fold_layer(
    predictor: NrpPredictor,
    states: Sequence[Mapping[str, np.ndarray]],
    bases: Sequence[Basis],
    activations: Sequence[LayerActivations],
    scale: np.ndarray,
    place: int,
) -> tuple[FoldedLayer, np.ndarray | float]:
    """What is computed from a layer, and by how much its rounding of the mean shifts the rates.

    Args:
        states: of the heads, float64.
    """
    x, basis, differing = activations[place], bases[place], _differing(bases)
    mean, l1, directions, linear, shift = None, None, None, None, 0.0
    if place in predictor.layers:
        name = f"l1.{predictor.layers.index(place)}"
        weights = np.concatenate([state[f"{name}.weight"] for state in states])
        biases = np.concatenate([state[f"{name}.bias"] for state in states])
        (n_units, r), n_features = weights.shape, x.shape[1]
        if r * (n_units + n_features) < n_units * n_features:
            directions, mean = basis.fold(np.eye(r), x)
        else:
            weights, mean = basis.fold(weights, x)
        rounding = mean - mean.astype(np.float32)
        seen = rounding if directions is None else directions @ rounding
        l1 = weights, biases - weights @ seen
    if predictor.linear is not None and place in differing:
        linear, mean = predictor.linear.fold(differing.index(place), x)
        linear = linear * (predictor.share * scale)[:, None]
        shift = -(linear @ (mean - mean.astype(np.float32)))
    assert mean is not None
    return FoldedLayer(mean.astype(np.float32), directions, l1, linear), shift
