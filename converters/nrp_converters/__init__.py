"""Converters: from a framework's model to an ONNX backbone with its layers exposed.

A converter is one module a framework. It runs the model once to see which layers it has, exports it
with every layer as a named output, and writes the layer table, the preprocessing and the model's
origin into the metadata, where the rest of the toolkit reads them. Converters are found through the
entry-point group ``nrp_onnx.converters``. Importing this package imports no framework.
"""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from nrp_converters.converted_model import ConvertedModel
    from nrp_converters.request import Request
    from nrp_converters.specs import convert_spec

__all__ = ["ConvertedModel", "Request", "convert_spec"]

__getattr__, __dir__, _ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "converted_model": ["ConvertedModel"],
        "request": ["Request"],
        "specs": ["convert_spec"],
    },
)
