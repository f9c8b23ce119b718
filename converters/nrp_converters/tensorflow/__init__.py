"""Converters of TensorFlow: Keras, SavedModel, TFLite."""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from nrp_converters.tensorflow.keras_models import convert

__all__ = ["convert"]

__getattr__, __dir__, _ = lazy_loader.attach(
    __name__,
    submod_attrs={"keras_models": ["convert"]},
)
