"""Keras on its TensorFlow backend, or an error that says how to get it."""

import os
import sys

from nrp_onnx.errors import ModelError

if "keras" not in sys.modules:
    os.environ["KERAS_BACKEND"] = "tensorflow"  # only such a model has a graph for tf2onnx

from nrp_onnx.converters.framework_packages import quiet
from nrp_onnx.converters.tensorflow_package import missing, without_stderr

try:
    with quiet(), without_stderr():
        import keras
except ImportError as _error:
    raise missing(_error) from _error

if keras.backend.backend() != "tensorflow":
    raise ModelError(
        "Keras runs on another backend",
        expected="the backend tensorflow",
        found=keras.backend.backend(),
        fix="Set the environment variable KERAS_BACKEND=tensorflow before keras is imported.",
    )

__all__ = ["keras"]
