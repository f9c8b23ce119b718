"""SPEC ``torchvision:NAME``: a model of torchvision, with its weights and their preprocessing."""

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
    "Install the build that fits your PyTorch: pip install 'nrp-onnx[torchvision]', for the CPU "
    "build with --extra-index-url https://download.pytorch.org/whl/cpu; or take hf:NAME, which has "
    "the same families and does without torchvision."
)


def from_spec(name: str, request: Request) -> ConvertedModel:
    """Convert the model that ``torchvision.models.get_model`` makes.

    ``--weights`` is none, DEFAULT or the name of published weights such as IMAGENET1K_V2. Without
    weights the preprocessing is still that of the default ones.

    Raises:
        OptionError, ModelError: if torchvision cannot be imported, does not know the name or the
            weights, cannot download them, or the model cannot be converted.
    """
    torchvision = imported("torchvision", _INSTALL)
    models = torchvision.models
    spec, name = f"torchvision:{name}", name.lower()
    known = list(models.list_models())
    if name not in known:
        raise no_such_model(spec, name, known)
    enumeration = models.get_model_weights(name)
    published = {member.name: member for member in enumeration}
    weights = _weights(request, published, enumeration, spec)
    source: dict[str, Any] = {"spec": f"torchvision:{name}"}
    try:
        with seeded(request.seed), quiet():
            module = models.get_model(name, weights=weights)
    except OSError as error:  # urllib's, from torch.hub
        raise no_weights(spec, error, "Convert with --weights none.") from error
    if weights is None:
        source |= {"weights": "none", "seed": request.seed}
    else:
        source |= {"weights": weights.name}
    described = weights or (enumeration.DEFAULT if published else None)
    own = None
    if request.preprocessing is None and described is not None:
        own = preprocessing_of(described.transforms(), request, spec)
    source["torchvision"] = str(torchvision.__version__)
    return convert_named(module, request, own, None, source)


def preprocessing_of(transforms: Any, request: Request, where: str) -> Preprocessing:
    """The steps of ``weights.transforms()``: resize the shorter edge, cut, scale to 0-1, normalise.

    Raises:
        OptionError: if these are not the transforms of an image classifier.
    """
    try:
        (edge,), (crop,) = transforms.resize_size, transforms.crop_size
        interpolation, mean, std = transforms.interpolation, transforms.mean, transforms.std
    except (AttributeError, TypeError, ValueError) as error:
        raise unsupported(f"the transforms {type(transforms).__name__}", where) from error
    spec = Preprocessing(
        size=edge,
        resample=resample_code(getattr(interpolation, "value", interpolation), request, where),
        crop_size=(crop, crop),
        rescale_factor=1 / 255,
        image_mean=tuple(mean),
        image_std=tuple(std),
    )
    checked: Preprocessing = checked_crop(spec, where)
    return checked


def _weights(request: Request, published: dict[str, Any], enumeration: Any, where: str) -> Any:
    """A member of the model's enumeration of weights, or None for random ones."""
    asked = request.weights or "DEFAULT"
    if asked == "none":
        return None
    if asked.upper() == "DEFAULT" and published:
        return enumeration.DEFAULT
    if asked.upper() not in published:
        raise OptionError(
            "there are no such weights",
            where=where,
            expected=f"one of none, {', '.join(published)}",
            found=repr(asked),
        )
    return published[asked.upper()]
