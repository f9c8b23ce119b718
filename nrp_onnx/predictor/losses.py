"""The losses that a head may be trained with, and their slopes."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

#: From errors (heads, images, sites) to the loss of each; and to its slope, in their place.
LOSSES: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] = {
    "mse": (torch.square, lambda error: error.mul_(2)),
    "mae": (torch.abs, Tensor.sign_),
    "huber": (
        lambda error: F.huber_loss(error, torch.zeros_like(error), reduction="none"),
        lambda error: error.clamp_(-1, 1),
    ),
}
