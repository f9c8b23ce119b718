"""What a user asks of a conversion by SPEC, and what every converter of specs is."""

from collections.abc import Callable
from dataclasses import dataclass, field

from nrp_onnx.backbone.preprocessing import Preprocessing
from nrp_onnx.converters.converted_model import ConvertedModel
from nrp_onnx.notes import Notes


@dataclass(frozen=True)
class Request:
    """The options of ``nrp-onnx convert``.

    Attributes:
        weights: ``none`` for random ones from the seed, a name that the source knows (such as
            ``imagenet``) or a file; None takes what the source has by default.
        preprocessing: the user's; None takes the source's own.
        input_size: (height, width) in pixels; None takes the source's own.
        seed: of random weights; recorded in the source wherever weights are random.
        notes: is told every choice that changes what is computed.
    """

    weights: str | None = None
    preprocessing: Preprocessing | None = None
    input_size: tuple[int, int] | None = None
    seed: int = 0
    notes: Notes = field(default_factory=Notes)


#: The value of an entry point of the group ``nrp_onnx.converters``, whose name is the part of SPEC
#: before the colon: it is called with the part after it.
Converter = Callable[[str, Request], ConvertedModel]
