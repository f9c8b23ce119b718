"""The preprocessing of a model whose file does not say which it wants."""

from nrp_onnx.backbone.preprocessing import PRESETS, Preprocessing
from nrp_onnx.converters.request import Request


def asked_or_imagenet(request: Request) -> Preprocessing:
    """The user's preprocessing, or imagenet, which is said."""
    asked: Preprocessing | None = request.preprocessing
    if asked is not None:
        return asked
    request.notes.say(
        "no preprocessing is named: taking imagenet (RGB 0-1, ImageNet mean and std); set it with "
        "--preprocess"
    )
    return PRESETS["imagenet"]
