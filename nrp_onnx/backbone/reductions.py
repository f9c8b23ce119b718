"""Reductions of a layer: their names, their shapes, which layers they fit."""

import difflib
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Literal

import numpy as np

from nrp_onnx.backbone.layers import Layer
from nrp_onnx.errors import OptionError

#: Features that are centred and multiplied at a time.
_BLOCK = 8192

#: A variance below this share of the largest is rounding of float32 activations.
_SMALLEST = 1e-12


# Compared by identity: == of two arrays is no truth value.
@dataclass(frozen=True, eq=False)
class PrincipalComponents:
    """Directions of a layer's activations: x becomes (x - mean) @ directions.

    Attributes:
        mean: float32 (n_features,), of the images that it was fitted on.
        directions: float32 (n_features, k), orthonormal columns, the widest first.
    """

    mean: np.ndarray
    directions: np.ndarray


def fit_components(activations: np.ndarray, k: int) -> PrincipalComponents:
    """The first k principal components of a sample.

    With the centred sample X_c = U S V^T, V = X_c^T U S^-1: an eigendecomposition of the
    n x n matrix X_c X_c^T instead of one of n_features x n_features.

    Args:
        activations: float32 (n, n_features), n over k; it is centred in place.

    Raises:
        ValueError: if the sample spans fewer than k directions.
    """
    mean = activations.mean(axis=0, dtype=np.float64).astype(np.float32)
    activations -= mean
    gram = np.zeros((len(activations),) * 2)
    for start in range(0, activations.shape[1], _BLOCK):
        block = activations[:, start : start + _BLOCK].astype(np.float64)
        gram += block @ block.T
    variances, left = np.linalg.eigh(gram)
    variances, left = variances[::-1][:k], left[:, ::-1][:, :k]
    if len(variances) < k or variances[-1] <= variances[0] * _SMALLEST:
        spanned = int((variances > variances[0] * _SMALLEST).sum())
        raise ValueError(f"{len(activations)} images span {spanned} directions")
    # An eigenvector may point either way: its largest entry is made positive.
    left = left * np.sign(left[np.abs(left).argmax(axis=0), np.arange(k)])
    directions = np.empty((activations.shape[1], k), np.float32)
    for start in range(0, activations.shape[1], _BLOCK):
        block = activations[:, start : start + _BLOCK].astype(np.float64)
        directions[start : start + _BLOCK] = block.T @ (left / np.sqrt(variances))
    return PrincipalComponents(mean, directions)


#: What ``auto`` tries, from the fullest to the smallest.
LADDER = ("none", "avgpool:7", "avgpool:4", "avgpool:2", "mean")

#: ``auto`` takes the fullest reduction whose activations fit in this many bytes for all stimuli.
AUTO_BYTES = 512 * 2**20

#: What ``--reduce`` may name, for messages and help.
NAMES = "none, avgpool:K, mean, cls, sketch:D or pca:K"

_NUMBERED = ("avgpool", "sketch", "pca")


@dataclass(frozen=True)
class Reduction:
    """What becomes of a layer before it leaves the session.

    Attributes:
        kind: ``none``; ``avgpool`` to a k x k map, of tokens that of the patches; ``mean`` over positions or tokens; ``cls``, the
            first token, which is the class token of the networks that have one; ``sketch``, a seeded
            balanced count sketch to k numbers; ``pca``, the first k principal components.
        k: the number behind the colon, 0 where there is none.
        components: of ``pca``, once they are fitted.
    """

    kind: Literal["none", "avgpool", "mean", "cls", "sketch", "pca"]
    k: int = 0
    components: PrincipalComponents | None = field(default=None, compare=False, repr=False)

    def __str__(self) -> str:
        return f"{self.kind}:{self.k}" if self.kind in _NUMBERED else self.kind

    def shape(self, layer: Layer) -> tuple[int, ...]:
        """The shape of one reduced image: channels first for maps, one axis for all but ``none``."""
        assert layer.shape is not None
        if self.kind in ("sketch", "pca"):
            return (self.k,)
        if self.kind == "none" or len(layer.shape) == 1:
            return layer.shape
        channels, *positions = channels_first(layer)
        if self.kind in ("mean", "cls"):
            return (channels,)
        if layer.layout == "NTC" and layer.grid is not None:
            positions = [layer.grid.height, layer.grid.width]
        return (channels, *(min(self.k, size) for size in positions))

    def layout(self, layer: Layer) -> str | None:
        """The layout of what the reduction returns."""
        if self.kind == "avgpool" and layer.layout in ("NHWC", "NTC"):
            return "NCHW"
        return layer.layout if self.kind in ("none", "avgpool") else "NC"

    def n_features(self, layer: Layer) -> int:
        """How many numbers of an image are left."""
        return math.prod(self.shape(layer))


def channels_first(layer: Layer) -> tuple[int, ...]:
    """The shape of one image of a layer with the channels before the positions or tokens."""
    assert layer.shape is not None
    if layer.layout in ("NHWC", "NTC"):
        return (layer.shape[-1], *layer.shape[:-1])
    return layer.shape


def read_reduction(choice: str) -> Reduction:
    """The reduction of one name, such as ``avgpool:2``.

    Raises:
        OptionError: if there is none of that name.
    """
    match choice.split(":"):
        case ["none" | "mean" | "cls" as kind]:
            return Reduction(kind)
        case ["avgpool" | "sketch" | "pca" as kind, k] if k.isdecimal() and int(k) > 0:
            return Reduction(kind, int(k))
    raise OptionError(
        "no such reduction",
        where="--reduce",
        expected=f"auto, {NAMES} (K and D positive numbers), or PATTERN=REDUCTION with commas",
        found=repr(choice),
    )


def choose_reductions(
    choice: str, layers: Sequence[Layer], n_images: int, where: object
) -> list[Reduction]:
    """The reduction of each layer.

    Args:
        choice: of ``--reduce``: ``auto``; one reduction for all; or rules such as
            ``layer4*=avgpool:2,fc=none``, of which the first whose pattern fits a layer's name
            holds. ``*`` is any text. A layer that none fits is reduced as by ``auto``.
        where: the model, for messages.

    Raises:
        OptionError: for what is no reduction, a pattern that fits no layer, or a reduction that a
            layer is not made for.
    """
    if choice == "auto":
        return _auto(layers, n_images)
    if "=" not in choice:
        reduction = read_reduction(choice)
        return [reduction_for(layer, reduction, asked=True) for layer in layers]
    rules = [_read_rule(text, layers, where) for text in re.split(r",(?=[^,]*=)", choice)]
    asked = [
        next((rule for pattern, rule in rules if _fits(layer, pattern)), None) for layer in layers
    ]
    left = [layer for layer, rule in zip(layers, asked, strict=True) if rule is None]
    rest = iter(_auto(left, n_images))
    return [
        next(rest) if rule is None else reduction_for(layer, rule, asked=True)
        for layer, rule in zip(layers, asked, strict=True)
    ]


def _read_rule(text: str, layers: Sequence[Layer], where: object) -> tuple[str, Reduction]:
    pattern, _, name = (part.strip() for part in text.rpartition("="))
    if not any(_fits(layer, pattern) for layer in layers):
        names = [layer.name for layer in layers]
        near = difflib.get_close_matches(pattern.strip("*"), names, n=3, cutoff=0.3)
        raise OptionError(
            "no chosen layer fits the pattern",
            where=f"--reduce, {where}",
            expected=f"a name or a pattern of {', '.join(near or names[:3])}",
            found=repr(pattern),
        )
    return pattern, read_reduction(name)


def _fits(layer: Layer, pattern: str) -> bool:
    # Brackets are characters of names here, no classes.
    return fnmatchcase(layer.name, pattern.replace("[", "[[]"))


def reduction_for(layer: Layer, reduction: Reduction, *, asked: bool) -> Reduction:
    """The reduction as it fits a layer: what would not make it smaller leaves it as it is.

    Raises:
        OptionError: if the user asked to pool tokens that are no map, or for the class token of a map.
    """
    if layer.layout == "NTC" and reduction.kind == "avgpool" and layer.grid is None:
        if asked:
            raise _no_fit(
                layer,
                "tokens that are no square of patches",
                "none, mean, cls, sketch:D or pca:K",
                reduction,
            )
        return Reduction("mean")
    if reduction.kind == "cls" and layer.layout in ("NCHW", "NHWC"):
        raise _no_fit(
            layer, "a map, no tokens", "none, avgpool:K, mean, sketch:D or pca:K", reduction
        )
    if reduction.kind in ("sketch", "pca"):
        return reduction if reduction.k < (layer.n_features or 0) else Reduction("none")
    return Reduction("none") if layer.layout == "NC" else reduction


def _no_fit(layer: Layer, what: str, expected: str, found: Reduction) -> OptionError:
    return OptionError(
        f"the layer {layer.name} has {what}", where="--reduce", expected=expected, found=found
    )


def _auto(layers: Sequence[Layer], n_images: int) -> list[Reduction]:
    """The fullest reduction of `LADDER` that keeps all layers of all images within `AUTO_BYTES`."""
    return fullest_within(layers, n_images, AUTO_BYTES) or _reduced(layers, LADDER[-1])


def fullest_within(
    layers: Sequence[Layer], n_images: int, n_bytes: float
) -> list[Reduction] | None:
    """The fullest reductions of `LADDER` that fit, as float32; None where none does."""
    for name in LADDER:
        reductions = _reduced(layers, name)
        features = sum(r.n_features(layer) for r, layer in zip(reductions, layers, strict=True))
        if features * 4 * n_images <= n_bytes:
            return reductions
    return None


def _reduced(layers: Sequence[Layer], name: str) -> list[Reduction]:
    reduction = read_reduction(name)
    return [reduction_for(layer, reduction, asked=False) for layer in layers]
