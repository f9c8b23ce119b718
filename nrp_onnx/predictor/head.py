"""The NRP head of Anand, Sen & Roy (2021), and the jobs that train one.

Selected layers -> NRP-L1, one dense layer with ReLU for each -> concatenate -> NRP-L2, dense with
ReLU -> NRP-out, linear, one output a site. The backbone is frozen: the inputs are its activations.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

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


@dataclass(frozen=True)
class HeadConfig:
    """One point of the search.

    Attributes:
        layers: places of the candidate layers that the head sees.
        l1: units of NRP-L1, for each layer.
        l2: units of NRP-L2.
        learning_rate: of Adam.
        dropout: which part of the outputs of NRP-L1 and NRP-L2 is dropped in training.
        weight_decay: decoupled, as in AdamW; of weights, not of biases.
        loss: ``mse``, ``mae`` or ``huber`` (quadratic up to an error of 1).
        input_noise: standard deviation of the Gaussian noise that is added to each coordinate in
            training; the root mean square of a layer's coordinates is 1.
        mask: of a spatial head, ``gaussian`` or ``free``, see `nrp_onnx.predictor.readouts.spatial`; it
            has no NRP-L2, and ``l2`` is 0. None: a head as in the paper.
        components: masks of each site of a spatial head.
    """

    layers: tuple[int, ...]
    l1: int
    l2: int
    learning_rate: float
    dropout: float = 0.0
    weight_decay: float = 0.0
    loss: str = "mse"
    input_noise: float = 0.0
    mask: str | None = None
    components: int = 1


@dataclass(frozen=True)
class TrainingPlan:
    """What all heads of a search share.

    Attributes:
        max_epochs: no head trains longer.
        patience: a head stops after this many epochs that were no better than its best.
        batch_size: images of a minibatch.
        halving: successive halving: after 1/16, 1/8, 1/4 and 1/2 of the epochs, the worse half of
            the heads that still train is ended.
        max_steps: training ends with the epoch that reaches so many minibatches; None: no limit.
        schedule: of the learning rates: ``constant``, or ``cosine``, which lowers them to 0 over all
            epochs (Loshchilov & Hutter 2017, without restarts).
    """

    max_epochs: int = 100
    patience: int = 10
    batch_size: int = 64
    halving: bool = False
    max_steps: int | None = None
    schedule: str = "constant"

    def epochs(self, n_images: int) -> int:
        """How many epochs there are at most on so many images."""
        if self.max_steps is None:
            return self.max_epochs
        steps_an_epoch = math.ceil(n_images / self.batch_size)
        return min(self.max_epochs, math.ceil(self.max_steps / steps_an_epoch))


@dataclass(frozen=True)
class Job:
    """A head to train; its seed decides its initial weights, minibatches, dropout and noise."""

    config: HeadConfig
    seed: int


@dataclass(frozen=True)
class Trial:
    """How a job went.

    Attributes:
        validation_mae: of the best epoch: mean over regions, in the targets' units; NaN without
            validation images, and infinite where no epoch's error was a number.
        epochs: the best epoch; the last without validation images.
        curve: validation MAE after each epoch; empty without validation images.
        losses: training loss of each epoch, while its minibatches passed.
    """

    config: HeadConfig
    seed: int
    validation_mae: float
    epochs: int
    curve: tuple[float, ...]
    losses: tuple[float, ...]


@dataclass(frozen=True)
class TrainedHead(Trial):
    """A trial with its head, at the best epoch; as it began where no error was a number."""

    head: nn.Module
