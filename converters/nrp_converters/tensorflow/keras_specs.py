"""Converts keras.applications by name."""

import difflib
import importlib
import random
from pathlib import Path
from typing import Any

import numpy as np

from nrp_converters.converted_model import ConvertedModel
from nrp_converters.request import Request
from nrp_converters.specs import quiet
from nrp_converters.tensorflow.graph import told
from nrp_converters.tensorflow.keras_files import convert_model_file, example_of, is_model_file
from nrp_converters.tensorflow.keras_heads import own_preprocessing
from nrp_converters.tensorflow.keras_models import convert
from nrp_converters.tensorflow.packages import keras
from nrp_onnx.backbone.preprocessing import PRESETS, Preprocessing
from nrp_onnx.errors import ModelError, OptionError
from nrp_onnx.files import sha256_of_file

_CHANNELS = 3


def build_application(
    name: str, weights: str | None, size: tuple[int, int] | None, seed: int
) -> Any:
    """Build a network of keras.applications with its classifier.

    Args:
        name: such as ``ResNet50``.
        weights: ``imagenet``, which may be downloaded; a file; None for random ones.
        size: (height, width) in pixels; None takes the network's own.
        seed: of random weights.

    Raises:
        OptionError: if there is no such network, file or size.
        ModelError: if the weights cannot be downloaded or do not fit.
    """
    function = _application(name)
    shape = None if size is None else (*size, _CHANNELS)
    # Keras numbers layers on from those of earlier models, but names must not depend on these.
    keras.utils.clear_session(free_memory=False)
    before = random.getstate(), np.random.get_state()
    try:
        with quiet():
            keras.utils.set_random_seed(seed)  # also those of Python and NumPy
            return function(weights=weights, input_shape=shape)
    except Exception as error:  # Keras raises a plain Exception where a download fails
        if "URL fetch failure" in str(error) or "HTTP" in str(error):
            raise ModelError(
                f"the weights {weights} cannot be downloaded",
                where=f"keras:{name}",
                found=told(error),
                fix="Connect to the network, give a file with --weights, or take random weights "
                "with --weights none.",
            ) from error
        raise OptionError(
            "Keras cannot build the network so",
            where=f"keras:{name}",
            expected="weights and an image size that fit it",
            found=told(error),
        ) from error
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])


def preprocessing_of(name: str) -> Preprocessing:
    """The preset that does what the application's own ``preprocess_input`` does.

    Raises:
        ModelError: if none does.
    """
    module = importlib.import_module(_application(name).__module__)
    grey = np.array([0.0, 51.0, 255.0, 128.0], np.float32)
    images = np.stack([grey, grey[::-1], grey[[2, 0, 3, 1]]], axis=-1).reshape(1, 2, 2, _CHANNELS)
    expected = module.preprocess_input(images.copy(), data_format="channels_last")
    for preset in PRESETS.values():
        mean, std = np.array(preset.image_mean), np.array(preset.image_std)
        found = (images * preset.rescale_factor - mean) / std
        if preset.channel_order == "BGR":
            found = found[..., ::-1]
        if np.allclose(found, expected, atol=1e-3):
            return preset
    raise ModelError(
        "the network has a preprocessing of its own",
        where=f"keras:{name}",
        expected=f"that of {', '.join(PRESETS)}",
        fix="Name one with --preprocess.",
    )


def _application(name: str) -> Any:
    known = [
        entry
        for entry in dir(keras.applications)
        if entry[0].isupper() and callable(getattr(keras.applications, entry))
    ]
    if name not in known:
        close = difflib.get_close_matches(name, known, n=3, cutoff=0.4)
        raise OptionError(
            "keras.applications has no such network",
            where=f"keras:{name}",
            expected=f"one of {', '.join(known)}, or a file FILE.keras or FILE.h5",
            found=repr(name),
            fix=f"Did you mean {' or '.join(close)}?" if close else None,
        )
    return getattr(keras.applications, name)


def from_spec(name: str, request: Request) -> ConvertedModel:
    """Convert a network of keras.applications, by default with ImageNet's weights, or a model file.

    Raises:
        OptionError, ModelError: if there is no such network or file, its weights cannot be had, or
            it cannot be converted.
    """
    if is_model_file(name):
        return convert_model_file(name, request)
    weights = request.weights or "imagenet"
    source: dict[str, Any] = {"spec": f"keras:{name}", "weights": weights}
    if weights == "none":
        source["seed"] = request.seed
    elif weights != "imagenet":
        source |= _weights_file(Path(weights))
    model = build_application(
        name, None if weights == "none" else weights, request.input_size, request.seed
    )
    spec = preprocessing_of(name)
    if request.preprocessing is not None:
        spec = own_preprocessing(model, request.preprocessing, request.notes) or spec
    return convert(model, example_of(request), preprocessing=spec, source=source)


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
