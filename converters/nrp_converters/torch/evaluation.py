"""A module as it predicts: in evaluation mode, with its submodules called; and its gradients."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nrp_converters.torch.layers import main_tensor
from nrp_onnx.errors import ModelError


@contextmanager
def evaluation(module: nn.Module) -> Iterator[None]:
    """Evaluation mode, without gradients; every submodule's own mode comes back afterwards."""
    training = [(part, part.training) for part in module.modules()]
    fast = torch.backends.mha.get_fastpath_enabled()
    # The fast path of attention calls no submodules, so their outputs would not be seen.
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        # What torch.compile has wrapped runs as it is written, so that its submodules are seen.
        with torch.no_grad(), torch.compiler.set_stance("force_eager"):
            module.eval()
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
        for part, mode in training:
            part.training = mode


def gradient_of(
    module: nn.Module, device: torch.device, images: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """`class_gradient` of a module, which is left as it was."""
    with evaluation(module):
        found: tuple[np.ndarray, np.ndarray]
        found = class_gradient(module, torch.from_numpy(images).to(device))
        return found


def class_gradient(module: nn.Module, images: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Scores, and the gradient of the cross-entropy against each image's own most likely class.

    Args:
        module: in evaluation mode, so that no image sees the others.
        images: a batch as the module takes it, on its device.

    Returns:
        float (n, n_classes), and an array of the batch's shape.

    Raises:
        ModelError: if the module gives no scores of classes.
    """
    with torch.enable_grad():
        batch = images.detach().requires_grad_()
        scores = main_tensor(module(batch))
        if scores is None or scores.ndim != 2 or scores.shape[1] < 2:
            raise ModelError(
                "the model gives no scores of classes",
                where=type(module).__name__,
                expected="an output of shape (batch, classes)",
                found="another" if scores is None else f"shape {tuple(scores.shape)}",
            )
        loss = F.cross_entropy(scores, scores.argmax(dim=1), reduction="sum")
        (gradient,) = torch.autograd.grad(loss, batch)
    return scores.detach().cpu().numpy(), gradient.cpu().numpy()
