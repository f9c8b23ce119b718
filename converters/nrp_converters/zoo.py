"""SPEC ``zoo:NAME``: networks that no framework ships, built here."""

import http.client
import shutil
import urllib.request
from pathlib import Path
from typing import Any

import onnx
import platformdirs
import torch
from onnx import numpy_helper

from nrp_converters.converted_model import ConvertedModel
from nrp_converters.request import Request
from nrp_converters.torch.alexnet import AlexNet
from nrp_converters.torch.modules import seeded
from nrp_converters.torch.named_models import convert_named, no_such_model, no_weights
from nrp_onnx.backbone.preprocessing import PRESETS
from nrp_onnx.errors import ModelError, OptionError
from nrp_onnx.files import sha256_of_file, whole_file

#: The ONNX model zoo's file, at the two places where it has been published.
_URLS = (
    "https://huggingface.co/onnxmodelzoo/legacy_models/resolve/main/validated/vision/"
    "classification/alexnet/model/bvlcalexnet-12.onnx",
    "https://media.githubusercontent.com/media/onnx/models/main/validated/vision/"
    "classification/alexnet/model/bvlcalexnet-12.onnx",
)
#: From the Git LFS pointer of that file in the repository onnx/models.
_SHA256 = "6b0da9510f27f234ee96a85dc3809dd210150fdefad87f6850f9788513216945"
_SECONDS = 30
_KNOWN = ("AlexNet",)
#: What Caffe crops its images to, in training and in deployment. The zoo's own graph takes 224.
_SIZE = (227, 227)


def from_spec(name: str, request: Request) -> ConvertedModel:
    """Convert ``AlexNet``, in any case, by default with the weights of the ONNX model zoo.

    ``--weights`` may be none or a file of the zoo (bvlcalexnet-*.onnx).

    Raises:
        OptionError, ModelError: if there is no such network, or its weights are not to be had.
    """
    if name.casefold() not in map(str.casefold, _KNOWN):
        raise no_such_model(f"zoo:{name}", name, _KNOWN)
    spec = "zoo:AlexNet"
    with seeded(request.seed):
        module = AlexNet()
    source: dict[str, Any] = {"spec": spec}
    if request.weights == "none":
        source |= {"weights": "none", "seed": request.seed}
    else:
        path = _downloaded(spec) if request.weights is None else Path(request.weights)
        load_weights(module, path)
        source |= {"weights": path.name, "weights_sha256": sha256_of_file(path)}
    biases = sum(value.numel() for key, value in module.named_parameters() if key.endswith("bias"))
    total = sum(value.numel() for value in module.parameters())
    source["n_parameters_without_biases"] = total - biases
    return convert_named(module, request, PRESETS["caffe"], _SIZE, source)


def load_weights(module: AlexNet, path: Path) -> None:
    """Fill a module from a file of the ONNX model zoo, by the names of its initialisers.

    Raises:
        OptionError: if there is no such file.
        ModelError: if it does not hold these weights.
    """
    if not path.is_file():
        raise OptionError(
            "no such weights",
            where="--weights",
            expected="none, or a file of the ONNX model zoo such as bvlcalexnet-12.onnx",
            found=repr(str(path)),
        )
    try:
        tensors = {tensor.name: tensor for tensor in onnx.load(path).graph.initializer}
    except Exception as error:  # protobuf's DecodeError
        raise ModelError("this file cannot be read as ONNX", where=path, found=error) from error
    state = {}
    for key, value in module.state_dict().items():
        layer, _, kind = key.rpartition(".")
        name = f"{layer}_{kind[0]}_0"
        shape = tuple(tensors[name].dims) if name in tensors else None
        if shape != tuple(value.shape):
            raise ModelError(
                "these are no weights of AlexNet",
                where=path,
                expected=f"an initialiser {name} of shape {tuple(value.shape)}",
                found="none" if shape is None else f"shape {shape}",
            )
        state[key] = torch.from_numpy(numpy_helper.to_array(tensors[name]).copy())
    module.load_state_dict(state)


def _downloaded(where: str) -> Path:
    """The zoo's file, in the user's cache; whole, by its SHA-256."""
    path = Path(platformdirs.user_cache_dir("nrp_onnx", appauthor=False)) / Path(_URLS[0]).name
    if path.is_file() and sha256_of_file(path) == _SHA256:
        return path
    reason: object = None
    for url in _URLS:
        try:
            with whole_file(path) as part:
                with urllib.request.urlopen(url, timeout=_SECONDS) as answer, part.open("wb") as to:
                    shutil.copyfileobj(answer, to)
                found = sha256_of_file(part)
                if found != _SHA256:
                    raise OSError(f"{url} has another content, with SHA-256 {found}")
            return path
        except (OSError, http.client.HTTPException) as error:
            reason = error
    raise no_weights(where, reason, "Convert with --weights none, or with --weights FILE.")
