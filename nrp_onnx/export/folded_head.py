"""A fitted predictor as plain arrays on activations: basis, means and units folded into its weights."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from torch import Tensor, nn

from nrp_onnx.activations.layer_file import LayerActivations
from nrp_onnx.backbone.layers import Grid
from nrp_onnx.predictor.channels import ChannelBasis
from nrp_onnx.predictor.directions import Basis
from nrp_onnx.predictor.image_products import FEATURES_A_BLOCK
from nrp_onnx.predictor.kernel_path import KernelPath
from nrp_onnx.predictor.linear_path import LinearPath, PrimalPath
from nrp_onnx.predictor.nrp_predictor import NrpPredictor
from nrp_onnx.predictor.readouts.spatial import SpatialHead
from nrp_onnx.threads import map_on_cores

Dense = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class SpatialLayer:
    """What is computed at each position of a layer.

    Attributes:
        grid: which features lie at which position.
        directions: (k, channels): coordinates are their products with the activations less the mean.
        l1: W (C * units, k) and b (C * units,) of NRP-L1, the units of the first head first; None where
            the heads do not see the layer.
        masks: (C, components, n_sites, P), of each head.
        weights: (C, components, n_sites, units), of the units under each mask.
        kernel_place: of the layer among those of the kernel ridge; None where it does not see it.
    """

    grid: Grid
    directions: np.ndarray
    l1: Dense | None
    masks: np.ndarray | None
    weights: np.ndarray | None
    kernel_place: int | None

    def coordinates(self, moved: np.ndarray) -> np.ndarray:
        """(n_images, P, k), from activations less their mean, (n_images, D)."""
        seen: np.ndarray = self.grid.by_position(moved) @ self.directions.T
        return seen

    def network(self, seen: np.ndarray) -> np.ndarray | float:
        """What the layer adds to the network, float64 (n_images, n_sites), from coordinates."""
        if self.l1 is not None and self.masks is not None and self.weights is not None:
            n_heads, _, _, n_units = self.weights.shape
            units = np.maximum(seen @ self.l1[0].T + self.l1[1], 0)
            apart = units.reshape(*units.shape[:2], n_heads, n_units)
            added: np.ndarray = np.einsum(
                "npcu,cksp,cksu->ns", apart, self.masks, self.weights, optimize=True
            )
            return added
        return 0.0


@dataclass(frozen=True)
class FoldedLayer:
    """What is computed from the activations of one layer; W and b of y = W x + b.

    Attributes:
        mean: what is taken from the activations first, float32 (D,): folded into b as well,
            activations that hardly differ would cancel to nothing.
        basis: (r, D), or None; the input of ``l1``, else the activations themselves.
        l1: W (C * units, r or D) and b (C * units,), those of the first head first; None where dense
            heads do not see the layer.
        linear: (n_sites, D), of the linear path, in the recordings' units; None where there is none.
        spatial: what spatial heads and the masked kernel ridge compute; None where there are none.
    """

    mean: np.ndarray
    basis: np.ndarray | None = None
    l1: Dense | None = None
    linear: np.ndarray | None = None
    spatial: SpatialLayer | None = None


@dataclass(frozen=True)
class FoldedHead:
    """C heads as one NRP network, beside a path: rates = gain * network + path + constant.

    Attributes:
        layers: one for each layer that is used.
        n_heads: C.
        l2: W (C, units, L * units of NRP-L1) and b (C, units) of dense heads; None of spatial ones.
        out: W (n_sites, C * units) of dense heads, else None; and b (n_sites,).
        root: whether the network gives square roots, which are squared where they are over 0.
        gain, constant: (n_sites,), in the recordings' own units.
        kernel: the masked kernel ridge, or None; its rates are multiplied by ``kernel_gain``, (n_sites,).
    """

    layers: list[FoldedLayer]
    n_heads: int
    l2: Dense | None
    out: tuple[np.ndarray | None, np.ndarray]
    root: bool
    gain: np.ndarray
    constant: np.ndarray
    kernel: KernelPath | None = None
    kernel_gain: np.ndarray | None = None

    def rates(self, activations: Sequence[np.ndarray]) -> np.ndarray:
        """Rates in the recordings' own units, float64 (n_images, n_sites).

        Args:
            activations: of each layer, (n_images, D).
        """
        out_weight, out_bias = self.out
        network, rates, local = np.asarray(out_bias, np.float64), self.constant, []
        of_kernel: dict[int, np.ndarray] = {}
        for layer, x in zip(self.layers, activations, strict=True):
            moved = x - layer.mean
            if layer.linear is not None:
                rates = rates + moved @ layer.linear.T
            if layer.l1 is not None:
                seen = moved if layer.basis is None else moved @ layer.basis.T
                units = np.maximum(seen @ layer.l1[0].T + layer.l1[1], 0)
                local.append(units.reshape(len(x), self.n_heads, -1))
            if layer.spatial is not None:
                seen = layer.spatial.coordinates(moved)
                network = network + layer.spatial.network(seen)
                if layer.spatial.kernel_place is not None:
                    of_kernel[layer.spatial.kernel_place] = seen.astype(np.float32)
        if self.kernel is not None:
            ordered = [of_kernel[place] for place in sorted(of_kernel)]
            rates = rates + self.kernel_gain * self.kernel.rates(ordered)
        if self.l2 is not None and out_weight is not None:
            joined = np.concatenate(local, axis=2)
            hidden = np.maximum(np.einsum("ncu,chu->nch", joined, self.l2[0]) + self.l2[1], 0)
            network = network + hidden.reshape(len(hidden), -1) @ out_weight.T
        if self.root:
            network = np.maximum(network, 0) ** 2
        found: np.ndarray = self.gain * network + rates
        return found


def used_layers(predictor: NrpPredictor, bases: Sequence[Basis]) -> list[int]:
    """Places of the candidate layers that the exported head needs, in the order of its inputs."""
    return sorted({*predictor.layers, *(_differing(bases) if predictor.path else ())})


def _differing(bases: Sequence[Basis]) -> list[int]:
    """Places of the layers that the path sees."""
    return [place for place, basis in enumerate(bases) if basis.n_directions]


def fold_head(
    predictor: NrpPredictor,
    bases: Sequence[Basis],
    channels: Sequence[ChannelBasis],
    activations: Sequence[LayerActivations],
    offset: np.ndarray,
    scale: np.ndarray,
) -> FoldedHead:
    """Fold what stands around the heads into their first and last weights.

    With coordinates c = (x - mean) V, NRP-L1 of dense heads is W c + b = (W V^T) (x - mean) + b; W and V
    are kept apart where they are smaller so, and always for spatial heads. The scale, the mean over
    heads and the weights of the mixture go into the last weights.

    Args:
        bases, channels, activations: of all candidate layers.
        offset, scale: float arrays (n_sites,) from the targets to the recordings' units.
    """
    root, gain = predictor.root, predictor.weight
    states = [
        {name: value.numpy().astype(np.float64) for name, value in _state_of(head).items()}
        for head in predictor.heads
    ]
    # The network gives square roots of rates, or rates.
    of_network = scale if root is None else root.scale
    at_zero = offset if root is None else root.offset
    constant = offset * (1 - gain)
    kernel = predictor.path if isinstance(predictor.path, KernelPath) else None
    if isinstance(predictor.path, LinearPath | PrimalPath):
        constant = constant + predictor.path_weight * scale * predictor.path.at_mean
    fold = partial(_fold_layer, predictor, states, bases, channels, activations, scale, of_network)
    bytes_each = 16 * len(bases[0].coordinates) * FEATURES_A_BLOCK
    folded = map_on_cores(fold, used_layers(predictor, bases), bytes_each)
    constant = constant + sum(shift for _, shift in folded)
    bias = np.mean([state["out.bias"].reshape(-1) for state in states], axis=0)
    l2, out_weight = None, None
    if not _is_spatial(predictor):
        weights = np.concatenate([state["out.weight"] for state in states], axis=1) / len(states)
        out_weight = weights * of_network[:, None]
        l2 = (
            np.stack([state["l2.weight"] for state in states]),
            np.stack([state["l2.bias"] for state in states]),
        )
    return FoldedHead(
        layers=[layer for layer, _ in folded],
        n_heads=len(states),
        l2=l2,
        out=(out_weight, bias * of_network + at_zero),
        root=root is not None,
        gain=gain,
        constant=constant,
        kernel=kernel,
        kernel_gain=None if kernel is None else predictor.path_weight * scale,
    )


def _is_spatial(predictor: NrpPredictor) -> bool:
    return isinstance(predictor.heads[0], SpatialHead)


def _state_of(head: nn.Module) -> dict[str, Tensor]:
    return head.state if isinstance(head, SpatialHead) else head.state_dict()


def _fold_layer(
    predictor: NrpPredictor,
    states: Sequence[Mapping[str, np.ndarray]],
    bases: Sequence[Basis],
    channels: Sequence[ChannelBasis],
    activations: Sequence[LayerActivations],
    scale: np.ndarray,
    of_network: np.ndarray,
    place: int,
) -> tuple[FoldedLayer, np.ndarray | float]:
    """What is computed from a layer, and by how much its rounding of the mean shifts the rates.

    Args:
        states: of the heads, float64.
        of_network: what the network's outputs are multiplied by, (n_sites,).
    """
    x, basis, differing = activations[place], bases[place], _differing(bases)
    mean, l1, directions, linear, spatial, shift = None, None, None, None, None, 0.0
    if _is_spatial(predictor) or isinstance(predictor.path, KernelPath):
        spatial = _fold_spatial(predictor, channels, differing, of_network, place)
        mean = channels[place].mean
    if place in predictor.layers and not _is_spatial(predictor):
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
    if isinstance(predictor.path, LinearPath | PrimalPath) and place in differing:
        linear, of_path = predictor.path.fold(differing.index(place), x)
        mean = of_path if mean is None else mean
        linear = linear * (predictor.path_weight * scale)[:, None]
        shift = -(linear @ (mean - mean.astype(np.float32)))
    assert mean is not None
    return FoldedLayer(mean.astype(np.float32), directions, l1, linear, spatial), shift


def _fold_spatial(
    predictor: NrpPredictor,
    channels: Sequence[ChannelBasis],
    differing: Sequence[int],
    of_network: np.ndarray,
    place: int,
) -> SpatialLayer:
    basis = channels[place]
    l1, masks, weights = None, None, None
    heads = [head for head in predictor.heads if isinstance(head, SpatialHead)]
    if heads and place in predictor.layers:
        at = predictor.layers.index(place)
        states = [head.state for head in heads]
        l1_weight = np.concatenate(
            [state[f"l1.{at}.weight"].double().numpy().T for state in states]
        )
        # Heads may see fewer components than the kernel ridge: those of most variance.
        unseen = basis.directions.shape[1] - l1_weight.shape[1]
        l1 = (
            np.pad(l1_weight, ((0, 0), (0, unseen))),
            np.concatenate([state[f"l1.{at}.bias"].double().numpy()[0] for state in states]),
        )
        n_units = heads[0].shape.l1
        units = slice(at * n_units, (at + 1) * n_units)
        # From (n_sites, components, ...) of a head to (heads, components, n_sites, ...).
        masks = np.stack([head.masks(at).double().numpy() for head in heads]).swapaxes(1, 2)
        of_units = np.stack([state["out.weight"][..., units].double().numpy() for state in states])
        weights = of_units.swapaxes(1, 2) * of_network[:, None] / len(heads)
    sees = isinstance(predictor.path, KernelPath) and place in differing
    at_kernel = differing.index(place) if sees else None
    return SpatialLayer(basis.grid, basis.directions.T, l1, masks, weights, at_kernel)
