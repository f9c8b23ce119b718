"""Gradients of a PyTorch classifier's loss with respect to its images; ONNX files have none."""

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nrp_onnx.converters.module_calls import main_tensor
from nrp_onnx.errors import ModelError


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
