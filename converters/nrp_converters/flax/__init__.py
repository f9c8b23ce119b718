"""Converters of JAX: Flax modules, nnx and linen."""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from nrp_converters.flax.modules import convert

__all__ = ["convert"]

__getattr__, __dir__, _ = lazy_loader.attach(
    __name__,
    submod_attrs={"modules": ["convert"]},
)
