"""SPEC ``saved_model:DIR``: a signature of a TensorFlow SavedModel."""

from pathlib import Path
from typing import Any

import numpy as np

from nrp_converters.converted_model import ConvertedModel
from nrp_converters.graph_edits import INPUT
from nrp_converters.image_input import SourceInput, image_input
from nrp_converters.request import Request
from nrp_converters.specs import quiet
from nrp_converters.tensorflow.frozen_graph import convert_graph, fitted_preprocessing
from nrp_converters.tensorflow.graph import frozen, told
from nrp_converters.tensorflow.packages import tf
from nrp_onnx.errors import ModelError, OptionError

_SIGNATURE = "serving_default"


def from_spec(name: str, request: Request) -> ConvertedModel:
    """Convert a signature of a SavedModel: ``--signature``, else ``serving_default``.

    Raises:
        OptionError, ModelError: if there is no such folder or signature, it takes anything but one
            batch of images, or it cannot be converted.
    """
    where = f"saved_model:{name}"
    if request.weights is not None:
        raise OptionError(
            "a SavedModel has its own weights",
            where=where,
            found=f"--weights {request.weights}",
            fix="Leave --weights out.",
        )
    loaded, signature = _load(Path(name), request.signature, where)
    given, key = _input_of(signature, request.input_size, where)
    graph = _freeze(signature, key, given, where)
    spec = fitted_preprocessing(graph, given, request, where)
    source: dict[str, Any] = {
        "spec": f"saved_model:{Path(name).resolve().name}",
        "signature": request.signature or _SIGNATURE,
    }
    n_parameters = sum(
        int(np.prod(variable.shape))
        for variable in signature.variables
        if variable.dtype.is_floating
    )
    if n_parameters:  # else the weights are constants, which are counted in the ONNX file
        source["n_parameters"] = n_parameters
    del loaded  # it had to stay until its variables were read
    return convert_graph(graph, given, spec, source, where)


def _load(path: Path, asked: str | None, where: str) -> tuple[Any, Any]:
    if not (path / "saved_model.pb").is_file() and not (path / "saved_model.pbtxt").is_file():
        raise OptionError(
            "no SavedModel is there",
            where=where,
            expected="a folder with saved_model.pb",
            found="a folder without" if path.is_dir() else "a file" if path.exists() else "nothing",
        )
    try:
        with quiet(), tf.device("/cpu:0"):
            loaded = tf.saved_model.load(str(path))
    except Exception as error:  # TensorFlow raises its own errors, OSError, ValueError, KeyError
        raise ModelError("TensorFlow cannot load it", where=where, found=told(error)) from error
    signatures = dict(getattr(loaded, "signatures", {}))
    if not signatures:
        raise ModelError(
            "the SavedModel has no serving signature",
            where=where,
            expected=f"the signature {asked or _SIGNATURE}",
            found="none",
            fix="Save it with tf.saved_model.save(model, DIR, signatures=function), or from Keras "
            "with model.export(DIR).",
        )
    if (asked or _SIGNATURE) not in signatures:
        raise OptionError(
            "the SavedModel has no such signature",
            where=where,
            expected=asked or _SIGNATURE,
            found=", ".join(sorted(signatures)),
            fix="Name one with --signature.",
        )
    return loaded, signatures[asked or _SIGNATURE]


def _input_of(signature: Any, size: tuple[int, int] | None, where: str) -> tuple[SourceInput, str]:
    keywords = signature.structured_input_signature[1]
    described = [
        (
            key,
            None if tensor.shape.rank is None else tensor.shape.as_list(),
            tensor.dtype.name,
        )
        for key, tensor in keywords.items()
    ]
    return image_input(described, size, where), next(iter(keywords))


def _freeze(signature: Any, key: str, given: SourceInput, where: str) -> Any:
    """The signature on images of that size, with its variables as constants."""

    def on_images(images: Any) -> list[Any]:
        return list(tf.nest.flatten(signature(**{key: images})))

    tensor = tf.TensorSpec(given.shape, given.dtype, name=INPUT)
    try:
        with quiet(), tf.device("/cpu:0"):
            function = tf.function(on_images, input_signature=[tensor], autograph=False)
            return frozen(function.get_concrete_function())
    except Exception as error:  # TensorFlow raises its own errors, ValueError and TypeError
        raise ModelError(
            "TensorFlow cannot trace the model", where=where, found=told(error)
        ) from error
