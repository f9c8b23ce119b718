"""torchvision: and timm:, which are not installed beside a CPU torch: stand-ins have their interface."""

import enum
import math
import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
from onnx import numpy_helper
from torch import nn

from nrp_converters.request import Request
from nrp_converters.source_preprocessing import for_size
from nrp_converters.torch.timm_models import preprocessing_of as timm_preprocessing
from nrp_converters.torch.torchvision_models import preprocessing_of as torchvision_preprocessing
from nrp_converters.torch.transformers_preprocessing import (
    preprocessing_of as transformers_preprocessing,
)
from nrp_onnx.backbone.model import Backbone, load_backbone
from nrp_onnx.errors import OptionError
from tests.command_line import assert_one_line_error, convert_command


class InterpolationMode(enum.Enum):
    BILINEAR = "bilinear"
    BICUBIC = "bicubic"
    LANCZOS = "lanczos"
    MITCHELL = "mitchell"


def image_classification(**changes):
    """The public attributes of torchvision.transforms._presets.ImageClassification."""
    return SimpleNamespace(
        **{
            "crop_size": [24],
            "resize_size": [32],
            "mean": [0.1, 0.2, 0.3],
            "std": [0.4, 0.5, 0.6],
            "interpolation": InterpolationMode.BILINEAR,
            "antialias": True,
        }
        | changes
    )


PRETRAINED_CFG = {
    "input_size": (3, 224, 224),
    "crop_pct": 0.9,
    "interpolation": "bicubic",
    "mean": (0.5, 0.4, 0.3),
    "std": (0.2, 0.2, 0.1),
    "crop_mode": "center",
}
BIT = {
    "do_resize": True,
    "size": {"shortest_edge": 256},
    "do_center_crop": True,
    "crop_size": {"height": 224, "width": 224},
    "resample": 3,
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
}
CONVNEXT = BIT | {"do_center_crop": None, "crop_pct": 0.875}


def test_torchvision_transforms():
    spec = torchvision_preprocessing(image_classification(), Request(), "x")
    assert (spec.size, spec.crop_size, spec.resample) == (32, (24, 24), 2)
    assert (spec.rescale_factor, spec.channel_order) == (1 / 255, "RGB")
    assert (spec.image_mean, spec.image_std) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))


def test_timm_configuration():
    spec = timm_preprocessing(PRETRAINED_CFG, Request(), "x")
    assert (spec.size, spec.crop_size, spec.resample) == (248, (224, 224), 3)
    assert (spec.image_mean, spec.image_std) == ((0.5, 0.4, 0.3), (0.2, 0.2, 0.1))
    squashed = PRETRAINED_CFG | {"crop_mode": "squash", "input_size": (3, 224, 192)}
    assert timm_preprocessing(squashed, Request(), "x").size == (248, 213)
    # What a configuration leaves out is as in timm.
    bare = timm_preprocessing({"input_size": (3, 224, 224)}, Request(), "x")
    assert (bare.size, bare.resample) == (math.floor(224 / 0.875), 3)
    assert bare.image_mean == (0.485, 0.456, 0.406)


@pytest.mark.parametrize(
    ("settings", "size", "crop"),
    [
        (BIT, 256, (224, 224)),
        (BIT | {"do_center_crop": False}, 256, None),
        (BIT | {"size": {"height": 240, "width": 230}}, (240, 230), (224, 224)),
        (CONVNEXT | {"size": {"shortest_edge": 224}}, 256, (224, 224)),
        (CONVNEXT | {"size": {"shortest_edge": 384}}, (384, 384), None),
    ],
)
def test_transformers_sizes(settings, size, crop):
    spec = transformers_preprocessing(settings, Request(), "x")
    assert (spec.size, spec.crop_size, spec.resample) == (size, crop, 3)


def test_transformers_steps_that_are_not_taken():
    settings = BIT | {"do_normalize": None, "do_flip_channel_order": True}
    spec = transformers_preprocessing(settings, Request(), "x")
    assert (spec.image_mean, spec.image_std) == ((0.0,) * 3, (1.0,) * 3)
    assert spec.channel_order == "BGR"
    assert (
        transformers_preprocessing(BIT | {"do_rescale": False}, Request(), "x").rescale_factor == 1
    )


def test_an_interpolation_that_onnx_lacks_is_replaced_and_said():
    for mapped, code, name, other in (
        (torchvision_preprocessing, "lanczos", "lanczos", (3, "bicubic")),
        (transformers_preprocessing, 1, "lanczos", (3, "bicubic")),
        (transformers_preprocessing, 4, "box", (2, "bilinear")),
        (timm_preprocessing, "hamming", "hamming", (2, "bilinear")),
    ):
        request = Request()
        source = {
            torchvision_preprocessing: image_classification(
                interpolation=InterpolationMode.LANCZOS
            ),
            transformers_preprocessing: BIT | {"resample": code},
            timm_preprocessing: PRETRAINED_CFG | {"interpolation": code},
        }[mapped]
        assert mapped(source, request, "x").resample == other[0]
        (said,) = request.notes.said
        assert f"resizes by {name}" in said
        assert f"taking {other[1]}" in said


@pytest.mark.parametrize(
    ("mapped", "source", "says"),
    [
        (
            torchvision_preprocessing,
            image_classification(interpolation=InterpolationMode.MITCHELL),
            "'mitchell'",
        ),
        (torchvision_preprocessing, image_classification(resize_size=[20]), "crop of (24, 24)"),
        (torchvision_preprocessing, SimpleNamespace(resize_size=[520]), "SimpleNamespace"),
        (timm_preprocessing, PRETRAINED_CFG | {"crop_mode": "border"}, "crop_mode border"),
        (timm_preprocessing, PRETRAINED_CFG | {"input_size": (3, 224, 192)}, "224 x 192"),
        (timm_preprocessing, PRETRAINED_CFG | {"input_size": (1, 28, 28)}, "1 channels"),
        (transformers_preprocessing, BIT | {"do_pad": True}, "do_pad"),
        (transformers_preprocessing, BIT | {"resample": 9}, "interpolation 9"),
        (
            transformers_preprocessing,
            BIT | {"size": {"shortest_edge": 800, "longest_edge": 1333}},
            "longest_edge",
        ),
        (transformers_preprocessing, BIT | {"size": {"shortest_edge": 200}}, "crop of (224, 224)"),
    ],
)
def test_what_cannot_be_carried_out_is_refused(mapped, source, says):
    with pytest.raises(OptionError, match="--preprocess") as caught:
        mapped(source, Request(), "the model")
    assert str(caught.value).startswith("the model: ")
    assert says in str(caught.value)


def test_another_input_size_keeps_the_share_that_is_cut_off():
    spec = transformers_preprocessing(BIT, Request(), "x")
    larger = for_size(spec, (448, 448), "x")
    assert (larger.size, larger.crop_size) == (512, (448, 448))
    stretched = transformers_preprocessing(
        BIT | {"do_center_crop": False, "size": {"height": 224, "width": 224}}, Request(), "x"
    )
    assert for_size(stretched, (160, 192), "x").size == (160, 192)
    with pytest.raises(OptionError, match="a square --input-size; found 160 x 192"):
        for_size(spec, (160, 192), "x")


def small_network(**_: object) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )


def weight_of(backbone: Backbone, name: str) -> np.ndarray:
    (tensor,) = (t for t in backbone.proto.graph.initializer if t.name == name)
    return numpy_helper.to_array(tensor)


@pytest.fixture
def torchvision(monkeypatch) -> ModuleType:
    """A package with torchvision's functions and one model, whose weights cannot be downloaded."""

    class Weights(enum.Enum):
        IMAGENET1K_V1 = 1
        IMAGENET1K_V2 = 2
        DEFAULT = 2

        def transforms(self):
            return image_classification(resize_size=[30 + self.value])

    def get_model(name, weights):
        assert name == "small_net"
        if weights is Weights.IMAGENET1K_V1:
            raise OSError("<urlopen error [Errno -2] Name or service not known>")
        network = small_network()
        if weights is not None:
            nn.init.constant_(network.get_parameter("0.bias"), 7.0)
        return network

    package = ModuleType("torchvision")
    package.__dict__.update(
        __version__="0.28.0",
        models=SimpleNamespace(
            get_model=get_model,
            list_models=lambda: ["small_net", "big_net"],
            get_model_weights=lambda name: Weights,
        ),
    )
    monkeypatch.setitem(sys.modules, "torchvision", package)
    return package


@pytest.mark.usefixtures("torchvision")
def test_torchvision_model_with_and_without_weights(tmp_path):
    out = tmp_path / "x.onnx"
    for options, weights in (((), "IMAGENET1K_V2"), (("--weights", "none"), "none")):
        run = convert_command("torchvision:Small_Net", "-o", out, *options)
        assert run.returncode == 0, run.stderr
        assert run.stderr == ""
        backbone = load_backbone(out)
        assert backbone.source is not None
        assert backbone.source["spec"] == "torchvision:small_net"
        assert backbone.source["weights"] == weights
        assert backbone.source.get("seed") == (0 if weights == "none" else None)
        assert (backbone.input.height, backbone.input.width) == (24, 24)
        assert backbone.preprocessing is not None
        assert backbone.preprocessing.size == 32
        assert [layer.name for layer in backbone.layers] == ["0", "1", "2", "3"]
        assert (weight_of(backbone, "0.bias") == 7).all() == (weights != "none")


@pytest.mark.usefixtures("torchvision")
@pytest.mark.parametrize(
    ("name", "options", "parts"),
    [
        ("smallnet", (), ["no such model", "small_net", "'smallnet'"]),
        ("small_net", ("--weights", "V9"), ["no such weights", "none, IMAGENET1K_V1", "'V9'"]),
        ("small_net", ("--weights", "imagenet1k_v1"), ["cannot be downloaded", "--weights none"]),
    ],
)
def test_torchvision_refusals(tmp_path, name, options, parts):
    run = convert_command(f"torchvision:{name}", "-o", tmp_path / "x.onnx", *options)
    assert_one_line_error(run, *parts)


@pytest.fixture
def timm(monkeypatch) -> ModuleType:
    """A package with timm's functions and one model, whose weights cannot be downloaded."""

    def create_model(name, pretrained):
        if pretrained:
            raise RuntimeError("an error happened while trying to locate the file\non the hub")
        network = small_network()
        vars(network)["pretrained_cfg"] = PRETRAINED_CFG | {"input_size": (3, 20, 20)}
        return network

    package = ModuleType("timm")
    package.__dict__.update(
        __version__="1.0.20",
        create_model=create_model,
        is_model=lambda name: name == "small_net",
        list_models=lambda: ["small_net"],
    )
    monkeypatch.setitem(sys.modules, "timm", package)
    return package


@pytest.mark.usefixtures("timm")
def test_timm_model(tmp_path):
    out = tmp_path / "x.onnx"
    run = convert_command("timm:small_net.a1_in1k", "-o", out, "--weights", "none", "--seed", 5)
    assert run.returncode == 0, run.stderr
    backbone = load_backbone(out)
    assert backbone.source is not None
    assert (backbone.source["weights"], backbone.source["seed"]) == ("none", 5)
    assert backbone.preprocessing is not None
    assert (backbone.preprocessing.size, backbone.preprocessing.crop_size) == (22, (20, 20))
    torch.manual_seed(5)
    twin = small_network().get_parameter("0.weight")
    assert np.array_equal(weight_of(backbone, "0.weight"), twin.detach().numpy())
    refused = {
        ("timm:small_net", "-o", out): ["cannot be downloaded", "on the hub", "--weights none"],
        ("timm:net", "-o", out): ["no such model", "small_net"],
        ("timm:small_net", "-o", out, "--weights", "imagenet"): ["no such weights", "a tag"],
    }
    for arguments, parts in refused.items():
        assert_one_line_error(convert_command(*arguments), *parts)


@pytest.mark.parametrize("package", ["torchvision", "timm"])
def test_a_package_that_cannot_be_imported(monkeypatch, tmp_path, package):
    monkeypatch.setitem(sys.modules, package, None)  # Python's way of saying: not installed
    run = convert_command(f"{package}:resnet50", "-o", tmp_path / "x.onnx")
    assert_one_line_error(run, f"pip install 'nrp-onnx[{package}]'", "hf:NAME")


def test_a_package_that_does_not_fit_torch(monkeypatch, tmp_path):
    (tmp_path / "torchvision.py").write_text(
        "raise RuntimeError('operator torchvision::nms does not exist')"
    )
    monkeypatch.delitem(sys.modules, "torchvision", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    run = convert_command("torchvision:resnet50", "-o", tmp_path / "x.onnx")
    assert_one_line_error(run, "nms does not exist", "fits your PyTorch", "hf:NAME")
