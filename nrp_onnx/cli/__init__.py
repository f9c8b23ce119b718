"""The command line: one module a group of commands, each a thin call of the library."""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from nrp_onnx.cli.app import main

__all__ = ["main"]

__getattr__, __dir__, _ = lazy_loader.attach(
    __name__,
    submod_attrs={"app": ["main"]},
)
