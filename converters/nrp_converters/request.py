"""What a user asks of a conversion by SPEC, and what every converter of specs is."""

from collections.abc import Callable
from dataclasses import dataclass, field

from nrp_converters.converted_model import ConvertedModel
from nrp_onnx.backbone.preprocessing import PRESETS, Preprocessing
from nrp_onnx.notes import Notes

#: (height, width) in pixels that most published networks take.
DEFAULT_SIZE = (224, 224)


@dataclass(frozen=True)
class Request:
    """The options of ``nrp-onnx convert``.

    Attributes:
        weights: ``none`` for random ones from the seed, a name that the source knows (such as
            ``imagenet``) or a file; None takes what the source has by default.
        preprocessing: the user's; None takes the source's own.
        input_size: (height, width) in pixels; None takes the source's own.
        seed: of random weights; recorded in the source wherever weights are random.
        signature: the function of a SavedModel; None takes ``serving_default``.
        notes: is told every choice that changes what is computed.
    """

    weights: str | None = None
    preprocessing: Preprocessing | None = None
    input_size: tuple[int, int] | None = None
    seed: int = 0
    signature: str | None = None
    notes: Notes = field(default_factory=Notes)

    def preprocessing_or(self, own: Preprocessing | None) -> Preprocessing:
        """The user's preprocessing, else the source's own, else ``imagenet``, which is said."""
        spec = self.preprocessing or own
        if spec is None:
            spec = PRESETS["imagenet"]
            self.notes.say(
                "the source does not say how its images are preprocessed: taking imagenet (RGB 0-1, "
                "ImageNet mean and std); set it with --preprocess imagenet|tf|caffe|raw|FILE.json"
            )
        return spec

    def size_or_default(self) -> tuple[int, int]:
        """The user's (height, width), else `DEFAULT_SIZE`, which is said."""
        if self.input_size is not None:
            return self.input_size
        height, width = DEFAULT_SIZE
        self.notes.say(f"no --input-size is named: taking {height} x {width} pixels")
        return DEFAULT_SIZE


#: The value of an entry point of the group ``nrp_onnx.converters``, whose name is the part of SPEC
#: before the colon: it is called with the part after it.
Converter = Callable[[str, Request], ConvertedModel]
