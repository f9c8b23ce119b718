"""Converters of PyTorch: modules, torchvision, timm, transformers."""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from nrp_converters.torch.modules import convert

__all__ = ["convert"]

__getattr__, __dir__, _ = lazy_loader.attach(
    __name__,
    submod_attrs={"modules": ["convert"]},
)
