"""The grid search over layer sets, sizes and learning rates; selection sees training images only."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import product

from torch import Tensor

from nrp_onnx.errors import OptionError
from nrp_onnx.predictor.job import HeadConfig, Job, TrainedHead, TrainingPlan
from nrp_onnx.predictor.training import train_heads


@dataclass(frozen=True)
class SearchSpace:
    """A grid.

    Attributes:
        single_layers: whether each layer alone is tried, beside all of them together.
        sizes: pairs of the units of NRP-L1 (for each layer) and NRP-L2.
        learning_rates: of Adam.
    """

    single_layers: bool
    sizes: tuple[tuple[int, int], ...]
    learning_rates: tuple[float, ...]
    plan: TrainingPlan = field(default_factory=TrainingPlan)

    def configs(self, n_layers: int) -> list[HeadConfig]:
        """Every point of the grid."""
        sets = [tuple(range(n_layers))]
        if self.single_layers and n_layers > 1:
            sets += [(place,) for place in range(n_layers)]
        return [
            HeadConfig(layers, l1, l2, rate)
            for layers, (l1, l2), rate in product(sets, self.sizes, self.learning_rates)
        ]


#: ``paper`` is the kind of grid that the paper searches; ``quick`` is for a first look and for CI.
PRESETS = {
    "paper": SearchSpace(
        single_layers=True, sizes=((64, 128), (256, 256)), learning_rates=(1e-3, 3e-4)
    ),
    "quick": SearchSpace(
        single_layers=False,
        sizes=((64, 128),),
        learning_rates=(1e-3, 3e-4),
        plan=TrainingPlan(max_epochs=40, patience=6),
    ),
}


def read_search(name: str) -> SearchSpace:
    """The preset that ``--search`` names.

    Raises:
        OptionError: if there is none of that name.
    """
    if name not in PRESETS:
        raise OptionError(
            "no such search", where="--search", expected=" or ".join(PRESETS), found=repr(name)
        )
    return PRESETS[name]


def search_head(
    space: SearchSpace,
    inputs: Sequence[Tensor],
    targets: Tensor,
    fit: Tensor,
    validation: Tensor,
    regions: Sequence[Tensor],
    seed: int,
    advance: Callable[[int], None],
) -> list[TrainedHead]:
    """Train every config of the grid; the best by validation error comes first.

    The arguments are those of `train_heads`.
    """
    jobs = [Job(config, seed) for config in space.configs(len(inputs))]
    trials = train_heads(inputs, targets, fit, validation, regions, jobs, space.plan, advance)
    return sorted(trials, key=lambda trial: trial.validation_mae)
