"""TensorFlow, tf2onnx and Keras, imported where they are needed."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from nrp_converters.specs import quiet
from nrp_onnx.errors import ModelError

__all__ = [
    "convert_to_constants",
    "keras",
    "missing",
    "tf",
    "tf2onnx",
    "tflite_schema",
    "without_stderr",
]

_BACKEND = "tensorflow"  # only its models have a graph for tf2onnx


@contextmanager
def without_stderr() -> Iterator[None]:
    """Without what C++ code writes to the process's standard error, past Python."""
    sys.stderr.flush()
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def missing(error: ImportError) -> ModelError:
    """The error for a framework that is not there."""
    return ModelError(
        "Keras, SavedModel and TFLite models need packages that are not installed",
        expected="TensorFlow, Keras and tf2onnx",
        found=error,
        fix="Run: pip install 'nrp-onnx[keras]'",
    )


def _check(backend: str, fix: str) -> None:
    if backend != _BACKEND:
        raise ModelError(
            "Keras runs on another backend",
            where="KERAS_BACKEND",
            expected=_BACKEND,
            found=backend,
            fix=fix,
        )


if "tensorflow" not in sys.modules:
    # TensorFlow logs its own choice of kernels before it reads any setting.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

_set_by_user = os.environ.get("KERAS_BACKEND")
if "keras" not in sys.modules:
    _check(_set_by_user or _BACKEND, "Unset that environment variable, or set it to tensorflow.")
# Only for the imports, the first of which already imports keras: keras.json may name another
# backend for the user's own programs.
os.environ["KERAS_BACKEND"] = _BACKEND
try:
    with quiet(), without_stderr():
        import keras
        import tensorflow as tf
        import tf2onnx.optimizer.transpose_optimizer
        import tf2onnx.tf_loader
        import tf2onnx.tfonnx
        from tensorflow.lite.python import schema_py_generated as tflite_schema
        from tensorflow.python.framework import convert_to_constants
except ImportError as _error:
    raise missing(_error) from _error
finally:
    if _set_by_user is None:
        del os.environ["KERAS_BACKEND"]
    else:
        os.environ["KERAS_BACKEND"] = _set_by_user
_check(keras.backend.backend(), "Set KERAS_BACKEND=tensorflow before keras is imported.")
