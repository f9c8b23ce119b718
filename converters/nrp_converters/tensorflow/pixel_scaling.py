"""The preprocessing that a model does itself, at its head: so that it is not done twice.

What the head does to a pixel is found by running it on images of one colour.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from nrp_converters.specs import quiet
from nrp_converters.tensorflow.packages import tf
from nrp_onnx.backbone.preprocessing import Preprocessing
from nrp_onnx.notes import Notes

#: A model is made for values of about this size, after its head.
_LARGEST = 20.0
_TOLERANCE = 1e-4

#: From float32 (1, height, width, 3) to what the head makes of it.
RunHead = Callable[[np.ndarray], object]


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


def measured(names: Sequence[str], run: RunHead, size: tuple[int, int]) -> Head | None:
    """Run operations on single colours; None if they are no product and sum for each channel.

    Args:
        names: of the operations.
        run: carries them out; what it raises means that nothing is known of them.
        size: (height, width) of the images.
    """
    rng = np.random.default_rng(0)
    colours = np.concatenate([np.zeros((1, 3)), np.eye(3), rng.uniform(0, 255, (4, 3))])
    try:
        with quiet(), tf.device("/cpu:0"):
            found = np.stack([_of_colour(run, colour, size) for colour in colours])
    except Exception:  # whatever a layer raises
        return None
    offset, matrix = found[0], found[1:4] - found[0]  # matrix[i, j]: of channel i on result j
    for order in ("RGB", "BGR"):
        scale = np.diag(matrix if order == "RGB" else matrix[::-1])
        turned = colours if order == "RGB" else colours[:, ::-1]
        difference = np.abs(found - (turned * scale + offset)).max()
        if (scale > 0).all() and difference <= _TOLERANCE * np.abs(found).max():
            return Head(tuple(names), scale, offset, order)
    return None


def _of_colour(run: RunHead, colour: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """What is made of an image of one colour: float64 (3,), NaN if that is no colour."""
    image = np.broadcast_to(colour, (1, *size, 3)).astype(np.float32)
    result = np.asarray(run(image), np.float64)
    first: np.ndarray = result[0, 0, 0]
    same = result.shape[3] == 3 and np.allclose(result, first, rtol=_TOLERANCE, atol=_TOLERANCE)
    return first if same else np.full(3, np.nan)


def preprocessing_with_head(
    head: Head | None, asked: Preprocessing | None, notes: Notes
) -> Preprocessing | None:
    """The preprocessing of a model that begins with its own, which is said.

    Args:
        asked: the user's, which is taken; a note says where it is done twice. None takes what the
            head expects.

    Returns:
        None where the model does not begin so and none is asked for.
    """
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
