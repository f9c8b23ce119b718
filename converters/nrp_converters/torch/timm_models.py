"""SPEC ``timm:NAME``: a model of timm, with its weights and their preprocessing."""

import math
from collections.abc import Mapping
from typing import Any

from nrp_converters.converted_model import ConvertedModel
from nrp_converters.request import Request
from nrp_converters.source_preprocessing import checked_crop, resample_code, unsupported
from nrp_converters.specs import quiet
from nrp_converters.torch.modules import seeded
from nrp_converters.torch.named_models import convert_named, no_such_model, no_weights
from nrp_onnx.backbone.preprocessing import Preprocessing
from nrp_onnx.errors import OptionError
from nrp_onnx.packages import imported

_INSTALL = (
    "Install it, and with it the torchvision that fits your PyTorch: pip install 'nrp-onnx[timm]', "
    "for the CPU build with --extra-index-url https://download.pytorch.org/whl/cpu; or take "
    "hf:NAME, which has the same families and does without both."
)
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # timm's defaults, as is all below
_CROP = 0.875


def from_spec(name: str, request: Request) -> ConvertedModel:
    """Convert the model that ``timm.create_model`` makes; NAME may have a tag: resnet50.a1_in1k.

    Raises:
        OptionError, ModelError: if timm cannot be imported, does not know the name, cannot
            download the weights, or the model cannot be converted.
    """
    timm = imported("timm", _INSTALL)
    spec = f"timm:{name}"
    if not timm.is_model(name.partition(".")[0]):
        raise no_such_model(spec, name, timm.list_models())
    if request.weights not in (None, "none"):
        raise OptionError(
            "there are no such weights",
            where=spec,
            expected="none, or no --weights: a tag after the name picks them (resnet50.a1_in1k)",
            found=repr(request.weights),
        )
    pretrained = request.weights is None
    try:
        with seeded(request.seed), quiet():
            module = timm.create_model(name, pretrained=pretrained)
    except Exception as error:  # of the hub's client, or timm's for an unknown tag
        if pretrained:
            raise no_weights(spec, error, "Convert with --weights none.") from error
        raise no_such_model(spec, name, timm.list_models()) from error
    weights = {"weights": "pretrained"} if pretrained else {"weights": "none", "seed": request.seed}
    own = None
    if request.preprocessing is None:
        own = preprocessing_of(module.pretrained_cfg, request, spec)
    source = {"spec": spec, **weights, "timm": str(timm.__version__)}
    return convert_named(module, request, own, None, source)


def preprocessing_of(config: Mapping[str, Any], request: Request, where: str) -> Preprocessing:
    """The steps of a ``pretrained_cfg``: resize to size / crop_pct, cut, scale to 0-1, normalise.

    ``crop_mode`` center keeps the proportions, squash does not.

    Raises:
        OptionError: if it pads, or does not take RGB.
    """
    channels, height, width = config["input_size"]
    share = config.get("crop_pct") or _CROP
    mode = config.get("crop_mode") or "center"
    scaled = (math.floor(height / share), math.floor(width / share))
    if channels != 3:
        raise unsupported(f"{channels} channels", where)
    if mode not in ("center", "squash") or (mode == "center" and height != width):
        raise unsupported(f"crop_mode {mode} for {height} x {width} pixels", where)
    spec = Preprocessing(
        size=scaled if mode == "squash" else scaled[0],
        resample=resample_code(config.get("interpolation") or "bicubic", request, where),
        crop_size=(height, width),
        rescale_factor=1 / 255,
        image_mean=tuple(config.get("mean") or _MEAN),
        image_std=tuple(config.get("std") or _STD),
    )
    checked: Preprocessing = checked_crop(spec, where)
    return checked
