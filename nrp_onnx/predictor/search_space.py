"""Which heads a search trains: a grid, and layer sets that are fixed or grown step by step."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from itertools import product
from typing import Any

from nrp_onnx.predictor.head import HeadConfig, Job, TrainingPlan

#: What ``layers`` of a search may name.
LAYER_SETS = ("all", "each", "greedy")
LayerSet = tuple[int, ...]


@dataclass(frozen=True)
class SearchSpace:
    """A grid of heads; every combination is trained.

    Attributes:
        layers: which sets of the candidate layers are tried: ``all`` together, ``each`` alone, and
            ``greedy`` forward selection: from the best layer on, the layer is added that lowers the
            validation error most, as long as one lowers it.
        sizes: pairs of the units of NRP-L1 (for each layer) and NRP-L2.
        learning_rates, dropouts, weight_decays, losses, input_noises: see `HeadConfig`.
        seeds: how often each is trained, with other initial weights and another order of images.
        directions: heads see each layer in so many directions at most, those of most variance; None:
            in all that the training images span.
        members: so many heads of the chosen configuration are trained on all training images and
            averaged; 0: the head of least validation error is taken as it is.
        linear_shares: which shares of ridge, or of masked kernel ridge, are tried; where there are any
            over 0, so are shares of the mean response.
        masks: of spatial heads, see `nrp_onnx.predictor.readouts.spatial.MASKS`; empty: dense heads, as
            in the paper. Spatial heads have no NRP-L2: the second of each pair of sizes is 0.
        components: masks of each site of a spatial head.
        channels: principal components of the channels of each layer that spatial heads see.
        parts: so many parts of the training images are left out in turn (cross-fitting); 0: a fifth
            is left out once, for validation.
        calibrate: whether each predictor may also predict square roots of counts, and is calibrated a
            site on held-out rates of training images; see `nrp_onnx.predictor.calibration`.
        masked: whether masked ridge and masked kernel ridge are fitted; the latter then stands beside the
            network in place of ridge.
        kernel_ridge: whether kernel ridge is one of the baselines; it takes as long as all others
            together.
    """

    layers: tuple[str, ...] = ("all",)
    sizes: tuple[tuple[int, int], ...] = ((64, 128),)
    learning_rates: tuple[float, ...] = (1e-3, 3e-4)
    dropouts: tuple[float, ...] = (0.0,)
    weight_decays: tuple[float, ...] = (0.0,)
    losses: tuple[str, ...] = ("mse",)
    input_noises: tuple[float, ...] = (0.0,)
    seeds: int = 1
    directions: int | None = None
    members: int = 0
    linear_shares: tuple[float, ...] = (0.0,)
    masks: tuple[str, ...] = ()
    components: int = 1
    channels: int = 64
    parts: int = 0
    calibrate: bool = False
    masked: bool = False
    kernel_ridge: bool = True
    plan: TrainingPlan = field(default_factory=TrainingPlan)

    def jobs(self, layer_sets: Iterable[LayerSet], seed: int) -> list[Job]:
        """Every head on these layers; their seeds count up from ``seed``."""
        grid = product(
            layer_sets,
            self.sizes,
            self.learning_rates,
            self.dropouts,
            self.weight_decays,
            self.losses,
            self.input_noises,
            self.masks or (None,),
            range(self.seeds),
        )
        return [
            Job(
                HeadConfig(
                    layers=layers,
                    l1=l1,
                    l2=l2 if mask is None else 0,
                    learning_rate=rate,
                    dropout=dropout,
                    weight_decay=decay,
                    loss=loss,
                    input_noise=noise,
                    mask=mask,
                    components=1 if mask is None else self.components,
                ),
                seed + place,
            )
            for layers, (l1, l2), rate, dropout, decay, loss, noise, mask, place in grid
        ]

    def without_places(self) -> "SearchSpace":
        """The same for layers none of which has a grid: heads are dense, as in the paper."""
        if not self.masks:
            return replace(self, masked=False)
        return replace(
            self,
            masks=(),
            masked=False,
            components=1,
            sizes=((128, 256),),
            learning_rates=(2e-3,),
            dropouts=(0.1,),
            weight_decays=(0.01,),
            directions=256,
        )

    @property
    def mixes(self) -> bool:
        """Whether the network may be mixed with what stands beside it."""
        return any(self.linear_shares)

    def next_layer_sets(self, n_layers: int, errors: Mapping[LayerSet, float]) -> list[LayerSet]:
        """The layer sets to train next; none when the search is over.

        Args:
            errors: the least validation error of each set that was trained.
        """
        singles: list[LayerSet] = [(place,) for place in range(n_layers)]
        first = [tuple(range(n_layers))] if "all" in self.layers else []
        if {"each", "greedy"} & set(self.layers):
            first += [single for single in singles if single not in first]
        missing = [layers for layers in first if layers not in errors]
        if missing or "greedy" not in self.layers:
            return missing
        chosen = min(singles, key=errors.__getitem__)
        while len(chosen) < n_layers:
            wider = [
                tuple(sorted({*chosen, place})) for place in range(n_layers) if place not in chosen
            ]
            missing = [layers for layers in wider if layers not in errors]
            if missing:
                return missing
            best = min(wider, key=errors.__getitem__)
            if not errors[best] < errors[chosen]:
                break
            chosen = best
        return []

    def to_json(self) -> dict[str, Any]:
        """All attributes, as JSON gives them back."""
        content: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return content

    def n_jobs(self, n_layers: int) -> int:
        """How many heads are trained; with greedy selection, at most."""
        errors: dict[LayerSet, float] = {}
        while layer_sets := self.next_layer_sets(n_layers, errors):
            # Each step lowers the error, so that none is left out.
            errors |= dict.fromkeys(layer_sets, -float(len(errors)))
        return len(self.jobs(errors, 0))


_TENTHS = tuple(place / 10 for place in range(11))
#: ``paper`` is the kind of grid that the paper searches; ``quick`` is for a first look and for CI.
PRESETS = {
    "paper": SearchSpace(layers=("all", "each"), sizes=((64, 128), (256, 256))),
    "quick": SearchSpace(
        sizes=((32, 0),),
        learning_rates=(8e-3,),
        dropouts=(0.3,),
        weight_decays=(0.5,),
        linear_shares=_TENTHS,
        masks=("gaussian",),
        channels=32,
        kernel_ridge=False,
        plan=TrainingPlan(
            max_epochs=12, max_steps=200, patience=12, batch_size=64, schedule="cosine"
        ),
    ),
    "default": SearchSpace(
        sizes=((64, 0),),
        learning_rates=(6e-3,),
        dropouts=(0.5,),
        weight_decays=(1.0,),
        linear_shares=_TENTHS,
        masks=("gaussian",),
        components=2,
        channels=64,
        parts=5,
        calibrate=True,
        masked=True,
        plan=TrainingPlan(max_epochs=30, max_steps=600, patience=30, schedule="cosine"),
    ),
    "thorough": SearchSpace(
        sizes=((64, 0), (128, 0)),
        learning_rates=(6e-3,),
        dropouts=(0.5,),
        weight_decays=(1.0,),
        linear_shares=_TENTHS,
        masks=("gaussian", "free"),
        components=2,
        channels=128,
        parts=10,
        calibrate=True,
        masked=True,
        plan=TrainingPlan(max_epochs=40, max_steps=1600, patience=40, schedule="cosine"),
    ),
}
