"""Converts model files of Keras, .keras and .h5, whole or a model inside them: ``FILE#LAYER``."""

from pathlib import Path
from typing import Any

import numpy as np

from nrp_converters.converted_model import ConvertedModel
from nrp_converters.request import Request
from nrp_converters.specs import quiet
from nrp_converters.tensorflow.graph import told
from nrp_converters.tensorflow.keras_heads import head_before, head_of, own_preprocessing
from nrp_converters.tensorflow.keras_models import convert
from nrp_converters.tensorflow.packages import keras
from nrp_onnx.backbone.preprocessing import Preprocessing
from nrp_onnx.errors import ModelError, OptionError
from nrp_onnx.files import sha256_of_file

_ENDINGS = (".keras", ".h5", ".hdf5")
_PART = "#"


def is_model_file(name: str) -> bool:
    """Whether a name after ``keras:`` is that of a file, and not of a network."""
    return name.partition(_PART)[0].lower().endswith(_ENDINGS) or "/" in name


def convert_model_file(name: str, request: Request) -> ConvertedModel:
    """Convert a file that ``model.save`` wrote, or the model inside it that ``#`` names.

    Args:
        name: ``FILE.keras``, ``FILE.h5``, or one of them, ``#`` and a layer's name; inside nested
            models ``#outer/inner``.

    Raises:
        OptionError, ModelError: if there is no such file or layer, or it cannot be converted.
    """
    file, _, part = (name, "", "") if Path(name).is_file() else name.partition(_PART)
    path, where = Path(file), f"keras:{name}"
    if path.suffix.lower() not in _ENDINGS or not path.is_file():
        raise OptionError(
            "no such model file",
            where=where,
            expected="a file FILE.keras or FILE.h5, as model.save writes it",
            found="a folder" if path.is_dir() else "a file" if path.exists() else "nothing",
            fix=f"For a SavedModel use saved_model:{file}" if path.is_dir() else None,
        )
    if request.weights is not None:
        raise OptionError(
            "a model file has its own weights",
            where=where,
            found=f"--weights {request.weights}",
            fix="Leave --weights out.",
        )
    whole = _loaded(path, where)
    source = {"spec": f"keras:{path.name}", "weights": path.name, "sha256": sha256_of_file(path)}
    model = whole
    if part:
        model = _part_of(whole, part, where)
        source["part"] = part
    preprocessing = request.preprocessing_or(_own_preprocessing(whole, model, request))
    return convert(model, example_of(request), preprocessing=preprocessing, source=source)


def example_of(request: Request) -> np.ndarray | None:
    """Images of the size that was asked for; None where none was."""
    if request.input_size is None:
        return None
    height, width = request.input_size
    return np.zeros((1, height, width, 3), np.float32)


def _loaded(path: Path, where: str) -> Any:
    try:
        with quiet():
            # Keras refuses links out of an HDF5 file, and with safe_mode the code of Lambda layers.
            model = keras.saving.load_model(path, compile=False, safe_mode=True)
    except Exception as error:  # Keras raises ValueError, TypeError, BadZipFile and others
        text = str(error)
        if "No model config" in text:
            raise ModelError(
                "the file holds weights and no model",
                where=where,
                expected="a file that model.save wrote",
                found="no configuration of a model",
                fix="For a network of keras.applications: nrp-onnx convert keras:NAME --weights "
                f"{path.name}",
            ) from error
        unsafe = "safe_mode" in text or "unsafe" in text.lower()
        raise ModelError(
            "the file holds code of its own, which is not run"
            if unsafe
            else "Keras cannot load the file",
            where=where,
            expected="a model of Keras's own layers",
            found="a Lambda layer or the like" if unsafe else told(error),
            fix="Convert it from Python: load it yourself, then nrp_onnx.convert(model).",
        ) from error
    if not isinstance(model, keras.Model):
        raise ModelError(
            "the file holds no model", where=where, expected="a model", found=type(model).__name__
        )
    return model


def _part_of(model: Any, part: str, where: str) -> Any:
    """The model inside a model, by the names of layers with slashes between them."""
    inside = _models_inside(model)
    if part not in inside:
        raise OptionError(
            "the file has no model of that name inside",
            where=where,
            expected=f"one of {', '.join(inside)}" if inside else "a file with nested models",
            found=repr(part),
            fix=None if inside else f"Leave {_PART}{part} out.",
        )
    return inside[part]


def _models_inside(model: Any, outer: str = "") -> dict[str, Any]:
    found = {}
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            found[outer + layer.name] = layer
            found |= _models_inside(layer, f"{outer}{layer.name}/")
    return found


def _own_preprocessing(whole: Any, model: Any, request: Request) -> Preprocessing | None:
    """What the head of a model says; of a part, also what the whole does to images before it."""
    if model is not whole and request.preprocessing is None and head_of(model) is None:
        before = head_before(whole, model)
        if before is not None:
            request.notes.say(
                f"before the model {model.name}, {whole.name} does {', '.join(before.names)}: that "
                "becomes its preprocessing"
            )
            return before.after()
    return own_preprocessing(model, request.preprocessing, request.notes)
