"""The preprocessing that a Keras model does itself, at its head: so that it is not done twice.

A model may begin with Rescaling or Normalization layers, or with arithmetic such as ``x / 127.5 - 1``
of ``preprocess_input``. What these do to a pixel is found by running them.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from nrp_converters.specs import quiet
from nrp_converters.tensorflow.packages import keras, tf
from nrp_onnx.backbone.preprocessing import Preprocessing
from nrp_onnx.notes import Notes

#: Operations that scale pixels, and those that leave them as they are when a model predicts.
_SCALING = frozenset(
    ["Add", "Divide", "GetItem", "Multiply", "Negative", "Normalization", "Rescaling", "Stack",
     "Subtract", "TrueDivide"]
)  # fmt: skip
_PASSING = frozenset(
    ["AutoContrast", "Dropout", "GaussianNoise", "Identity", "InputLayer", "RandomBrightness",
     "RandomContrast", "RandomFlip", "RandomRotation", "RandomTranslation", "RandomZoom"]
)  # fmt: skip
#: A model is made for values of about this size, after its head.
_LARGEST = 20.0
_TOLERANCE = 1e-4


@dataclass(frozen=True)
class Head:
    """What a model does to each pixel before its first layer with weights: ``scale * x + offset``.

    Attributes:
        names: of the operations that do it, in order.
        scale: per channel of the result, float (3,).
        offset: the same.
        channel_order: ``BGR`` where the channels are turned round, else ``RGB``.
    """

    names: tuple[str, ...]
    scale: np.ndarray
    offset: np.ndarray
    channel_order: str

    @property
    def highest(self) -> float:
        """The largest value that the model is made for: 255 or 1.

        The head brings its input to about -1 to 1, or to a standard deviation of 1. So 0 to 255 is
        what it takes if that comes out small, or if it is centred on a value over 1.
        """
        centre = float(np.median(-self.offset / self.scale))
        return 255.0 if centre > 1 or float(np.median(self.scale)) * 255 <= _LARGEST else 1.0

    def before(self) -> Preprocessing:
        """From uint8 images to what the model takes."""
        return Preprocessing(rescale_factor=self.highest / 255)

    def after(self) -> Preprocessing:
        """From uint8 images to what the rest of the model takes: the head itself."""
        mean, std = -self.offset / self.scale, 1 / self.scale
        if self.channel_order == "BGR":
            mean, std = mean[::-1], std[::-1]
        return Preprocessing(
            rescale_factor=self.highest / 255,
            image_mean=(float(mean[0]), float(mean[1]), float(mean[2])),
            image_std=(float(std[0]), float(std[1]), float(std[2])),
            channel_order="BGR" if self.channel_order == "BGR" else "RGB",
        )


def head_of(model: Any) -> Head | None:
    """The scaling of pixels that a model begins with; None where it does none that is understood.

    Args:
        model: a functional or sequential ``keras.Model`` of images with the channels last.
    """
    if not getattr(model, "inputs", None):
        return None
    names, steps = _steps(model)
    return None if not names else _measured(names, steps)


def preprocessing_with_head(
    model: Any, asked: Preprocessing | None, notes: Notes
) -> Preprocessing | None:
    """The preprocessing of a model that begins with its own, which is said.

    Args:
        asked: the user's, which is taken; a note says where it is done twice. None takes what the
            head expects.

    Returns:
        None where the model does not begin so and none is asked for.
    """
    head = head_of(model)
    if head is None:
        return asked
    does = f"the model begins with {', '.join(head.names)}, made for values 0 to {head.highest:g}"
    own = head.before()
    if asked is None:
        notes.say(f"{does}: images are given to it so, and are not normalised before")
        return own
    if _range(asked) != _range(own):
        low, high = _range(asked)
        notes.say(
            f"{does}, and the preprocessing that is asked for gives {low:.3g} to {high:.3g}: "
            "images are preprocessed twice. Leave --preprocess out to give them as the model "
            "takes them"
        )
    return asked


def _range(spec: Preprocessing) -> tuple[float, float]:
    """The lowest and the highest value that a preprocessing gives."""
    mean, std = np.array(spec.image_mean), np.array(spec.image_std)
    low, high = (-mean / std).min(), ((255 * spec.rescale_factor - mean) / std).max()
    return round(float(low), 3), round(float(high), 3)


def head_before(model: Any, part: Any) -> Head | None:
    """The scaling of pixels between a model's input and a model inside it; None where there is
    none, or more."""
    names: list[str] = []
    last = None
    for operation in _operations(model):
        if operation is part:
            return _measured(names, _until(model, last)) if names else None
        if not _is_all_head(operation):
            return None
        names += _names(operation)
        last = operation
    return None


def _operations(model: Any) -> list[Any]:
    """What a model calls, in the order of its graph."""
    return list(getattr(model, "operations", None) or model.layers)


def _names(operation: Any) -> list[str]:
    """The scaling operations in one that is all head."""
    if isinstance(operation, keras.Model):
        return [name for inner in _operations(operation) for name in _names(inner)]
    kind = type(operation).__name__
    return [f"{kind} ({operation.name})"] if kind in _SCALING else []


def _is_all_head(operation: Any) -> bool:
    if isinstance(operation, keras.Model):
        return all(map(_is_all_head, _operations(operation)))
    return type(operation).__name__ in _SCALING | _PASSING


def _steps(model: Any) -> tuple[list[str], list[Any]]:
    """The scaling operations that come first, and models that carry them out one after another."""
    names: list[str] = []
    last = None
    for operation in _operations(model):
        if _is_all_head(operation):
            names += _names(operation)
            last = operation
            continue
        if isinstance(operation, keras.Model):
            inner_names, inner = _steps(operation)
            return [*names, *inner_names], [*_until(model, last), *inner]
        break
    return names, _until(model, last)


def _until(model: Any, last: Any) -> list[Any]:
    """The model up to an operation; none where that does nothing."""
    if last is None or type(last).__name__ == "InputLayer":
        return []
    return [keras.Model(model.inputs, last.output)]


def _measured(names: list[str], steps: list[Any]) -> Head | None:
    """Run the steps on single colours; None if they are no product and sum for each channel."""
    rng = np.random.default_rng(0)
    colours = np.concatenate([np.zeros((1, 3)), np.eye(3), rng.uniform(0, 255, (4, 3))])
    try:
        with quiet(), tf.device("/cpu:0"):
            found = np.stack([_run(steps, colour) for colour in colours])
    except Exception:  # whatever a layer raises: nothing is known of the head, then
        return None
    offset, matrix = found[0], found[1:4] - found[0]  # matrix[i, j]: of channel i on result j
    for order in ("RGB", "BGR"):
        scale = np.diag(matrix if order == "RGB" else matrix[::-1])
        turned = colours if order == "RGB" else colours[:, ::-1]
        difference = np.abs(found - (turned * scale + offset)).max()
        if (scale > 0).all() and difference <= _TOLERANCE * np.abs(found).max():
            return Head(tuple(names), scale, offset, order)
    return None


def _run(steps: list[Any], colour: np.ndarray) -> np.ndarray:
    """What the steps make of an image of one colour: float64 (3,), NaN if that is no colour."""
    height, width = (side or 8 for side in steps[0].inputs[0].shape[1:3])
    image: Any = np.broadcast_to(colour, (1, height, width, 3)).astype(np.float32)
    for step in steps:
        image = step(image, training=False)
    image = np.asarray(image, np.float64)
    first = image[0, 0, 0]
    same = image.shape[3] == 3 and np.allclose(image, first, rtol=_TOLERANCE, atol=_TOLERANCE)
    return first if same else np.full(3, np.nan)
