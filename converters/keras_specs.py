"""SPEC ``keras:NAME``, a network of keras.applications, or ``keras:FILE.keras``, a saved model."""

from pathlib import Path
from typing import Any

import numpy as np

from nrp_onnx.converters.converted_model import ConvertedModel
from nrp_onnx.converters.framework_packages import quiet
from nrp_onnx.converters.keras import convert
from nrp_onnx.converters.keras_applications import build_application, preprocessing_of
from nrp_onnx.converters.keras_package import keras
from nrp_onnx.converters.request import Request
from nrp_onnx.converters.tensorflow_graph import told
from nrp_onnx.errors import ModelError, OptionError
from nrp_onnx.files import sha256_of_file

_FILE_ENDINGS = (".keras", ".h5", ".hdf5")


def from_spec(name: str, request: Request) -> ConvertedModel:
    """Convert a network of keras.applications, by default with ImageNet's weights, or a model file.

    Raises:
        OptionError, ModelError: if there is no such network or file, its weights cannot be had, or
            it cannot be converted.
    """
    if name.lower().endswith(_FILE_ENDINGS) or "/" in name:
        return _from_file(name, request)
    weights = request.weights or "imagenet"
    source: dict[str, Any] = {"spec": f"keras:{name}", "weights": weights}
    if weights == "none":
        source["seed"] = request.seed
    elif weights != "imagenet":
        source |= _weights_file(Path(weights))
    model = build_application(
        name, None if weights == "none" else weights, request.input_size, request.seed
    )
    spec = request.preprocessing or preprocessing_of(name)
    return convert(model, _example(request), preprocessing=spec, source=source)


def _from_file(name: str, request: Request) -> ConvertedModel:
    path, spec = Path(name), f"keras:{name}"
    if path.suffix.lower() != ".keras" or not path.is_file():
        raise OptionError(
            "no such model file",
            where=spec,
            expected="a file FILE.keras, as model.save writes it",
            found="a folder" if path.is_dir() else "a file" if path.exists() else "nothing",
        )
    if request.weights is not None:
        raise OptionError(
            "a model file has its own weights",
            where=spec,
            found=f"--weights {request.weights}",
            fix="Leave --weights out.",
        )
    try:
        with quiet():
            model = keras.saving.load_model(path, compile=False, safe_mode=True)
    except Exception as error:  # Keras raises ValueError, TypeError, BadZipFile and others
        unsafe = "safe_mode" in str(error) or "unsafe" in str(error).lower()
        raise ModelError(
            "the file holds code of its own, which is not run"
            if unsafe
            else "Keras cannot load the file",
            where=spec,
            expected="a model of Keras's own layers",
            found="a Lambda layer or the like" if unsafe else told(error),
            fix="Convert it from Python: load it yourself, then nrp_onnx.convert(model).",
        ) from error
    if not isinstance(model, keras.Model):
        raise ModelError(
            "the file holds no model", where=spec, expected="a model", found=type(model).__name__
        )
    source = {"spec": f"keras:{path.name}", "weights": path.name, "sha256": sha256_of_file(path)}
    preprocessing = request.preprocessing_or(None)
    return convert(model, _example(request), preprocessing=preprocessing, source=source)


def _example(request: Request) -> np.ndarray | None:
    """Images of the size that was asked for."""
    if request.input_size is None:
        return None
    height, width = request.input_size
    return np.zeros((1, height, width, 3), np.float32)


def _weights_file(path: Path) -> dict[str, str]:
    """What is recorded of a file of weights: not where it lies."""
    if not path.is_file():
        raise OptionError(
            "no such weights",
            where="--weights",
            expected="imagenet, none, or a file FILE.weights.h5",
            found=repr(str(path)),
        )
    return {"weights": path.name, "weights_sha256": sha256_of_file(path)}
