"""hf: models of transformers from local folders, layer by layer against eager transformers."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
import torch
import transformers
from onnx import numpy_helper
from torch import Tensor, nn

from nrp_converters.parity import preprocessed
from nrp_onnx.backbone.model import Backbone, load_backbone
from tests.command_line import assert_one_line_error, assert_user_error, convert_command, nrp_onnx
from tests.converters.models import randomise_batch_norms

pytestmark = pytest.mark.slow

#: A family's small configuration, and the image processor that is published with such models.
SMALL: dict[str, tuple[Any, dict[str, Any]]] = {
    "resnet": (
        transformers.ResNetConfig(
            embedding_size=8, hidden_sizes=[8, 16], depths=[1, 2], layer_type="basic", num_labels=5
        ),
        {"image_processor_type": "ConvNextImageProcessor", "size": {"shortest_edge": 56}},
    ),
    "vit": (
        transformers.ViTConfig(
            hidden_size=24,
            num_hidden_layers=2,
            num_attention_heads=3,
            intermediate_size=40,
            image_size=32,
            patch_size=8,
            num_labels=5,
        ),
        {"image_processor_type": "ViTImageProcessor", "size": {"height": 32, "width": 32}},
    ),
    "convnext": (
        transformers.ConvNextConfig(
            hidden_sizes=[8, 16], depths=[1, 2], num_stages=2, image_size=48, num_labels=5
        ),
        {
            "feature_extractor_type": "ConvNextFeatureExtractor",
            "size": 48,
            "crop_pct": 0.75,
            "resample": 3,
        },
    ),
    "swin": (
        transformers.SwinConfig(
            image_size=32,
            patch_size=2,
            embed_dim=12,
            depths=[2, 1],
            num_heads=[2, 3],
            window_size=4,
            num_labels=5,
        ),
        {"image_processor_type": "ViTImageProcessor", "size": 32, "resample": 3},
    ),
}


def save(family: str, folder: Path) -> None:
    """A random classifier as `save_pretrained` writes it, with its preprocessor_config.json."""
    config, processor = SMALL[family]
    torch.manual_seed(1)
    model = transformers.AutoModelForImageClassification.from_config(config)
    randomise_batch_norms(model)
    if family == "convnext":  # its layers start out as almost nothing beside what they are added to
        for name, weight in model.named_parameters():
            if "layer_scale" in name:
                nn.init.uniform_(weight, 0.5, 1.5)
    model.save_pretrained(folder)
    settings = {"image_mean": [0.4, 0.5, 0.6], "image_std": [0.2, 0.25, 0.3], **processor}
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))


@pytest.fixture(scope="module", params=list(SMALL))
def converted(request, tmp_path_factory) -> tuple[str, Path, Backbone]:
    family = request.param
    folder = tmp_path_factory.mktemp("hf") / f"my-{family}"
    save(family, folder)
    out = folder.parent / "model.onnx"
    # One of them as a user runs it; the others in this process, which takes half the time.
    if family == "vit":
        run: Any = nrp_onnx("convert", f"hf:{folder}", "-o", out)
    else:
        run = convert_command(f"hf:{folder}", "-o", out)
    assert run.returncode == 0, run.stderr
    # All is named by the folder, and transformers stays silent.
    assert run.stderr == ""
    assert "parity with the source" in run.stdout
    return family, folder, load_backbone(out)


def eager_layers(folder: Path, images: Tensor) -> tuple[dict[str, Tensor], Tensor]:
    """The first tensor that each submodule returns, by path or path#n, and the logits."""
    model = transformers.AutoModelForImageClassification.from_pretrained(
        folder, attn_implementation="eager"
    ).eval()
    returned: list[tuple[str, Any]] = []
    for path, part in model.named_modules():
        part.register_forward_hook(
            lambda _, __, output, path=path: returned.append((path, first(output)))
        )
    with torch.no_grad():
        logits = model(images).logits
    total, so_far = Counter(path for path, _ in returned), Counter[str]()
    found = {}
    for path, tensor in returned:
        so_far[path] += 1
        found[path if total[path] == 1 else f"{path}#{so_far[path]}"] = tensor
    return found, logits


def first(output: Any) -> Any:
    if isinstance(output, dict):
        output = tuple(output.values())
    output = output[0] if isinstance(output, tuple) else output
    return output.clone() if isinstance(output, Tensor) else output


def test_every_layer_equals_eager_transformers(converted):
    _, folder, backbone = converted
    size = backbone.input.height
    images = torch.randn(3, 3, size, size, generator=torch.Generator().manual_seed(0))
    expected, logits = eager_layers(folder, images)
    session = ort.InferenceSession(backbone.path, providers=["CPUExecutionProvider"])
    names = ["output", *(layer.tensor for layer in backbone.layers)]
    output, *layers = session.run(names, {"input": images.numpy()})
    for layer, got in zip(backbone.layers, layers, strict=True):
        want = expected[layer.name].numpy()
        assert got.shape == want.shape, layer.name
        assert got.shape[1:] == layer.shape
        error = np.abs(got - want).max() / np.abs(want).max()
        assert error <= 1e-4, f"{layer.name}: relative error {error:.2g}"
    assert np.abs(output - logits.numpy()).max() <= 1e-4 * np.abs(logits.numpy()).max()


#: Layers that a user would want, and how they are laid out.
LAYOUTS: dict[str, dict[str, tuple[tuple[int, ...], str]]] = {
    "resnet": {
        "resnet": ((16, 7, 7), "NCHW"),
        "resnet.encoder.stages.1.layers.1": ((16, 7, 7), "NCHW"),
        "classifier.1": ((5,), "NC"),
    },
    "vit": {
        "vit.embeddings": ((17, 24), "NTC"),
        "vit.layers.1.attention": ((17, 24), "NTC"),
        "vit.layers.0.dropout#2": ((17, 24), "NTC"),
        "vit": ((17, 24), "NTC"),
    },
    "convnext": {
        "convnext.encoder.stages.1.downsampling_layer.0": ((8, 12, 12), "NCHW"),
        "convnext.encoder.stages.1.layers.0.dwconv": ((16, 6, 6), "NCHW"),
        "convnext.encoder.stages.1.layers.0.layernorm": ((6, 6, 16), "NHWC"),
        "convnext.encoder.stages.1.layers.0.pwconv1": ((6, 6, 64), "NHWC"),
        "convnext.encoder.stages.1.layers.0.act": ((6, 6, 64), "NHWC"),
        "convnext.encoder.stages.1.layers.0": ((16, 6, 6), "NCHW"),
        "convnext": ((16, 6, 6), "NCHW"),
    },
    "swin": {
        "swin.encoder.layers.0.blocks.1": ((256, 12), "NTC"),
        "swin.encoder.layers.0": ((64, 24), "NTC"),
        "swin": ((64, 24), "NTC"),
    },
}


def test_layers_and_their_layouts(converted):
    family, _, backbone = converted
    table = {layer.name: (layer.shape, layer.layout) for layer in backbone.layers}
    for name, expected in LAYOUTS[family].items():
        assert table[name] == expected, name


def test_source_names_the_folder_and_no_path_of_the_machine(converted):
    family, folder, backbone = converted
    source = backbone.source
    assert source is not None
    assert (source["spec"], source["weights"]) == (f"hf:my-{family}", "folder")
    assert source["transformers"] == transformers.__version__
    assert source["class"].endswith("ForImageClassification")
    assert str(folder.parent).encode() not in backbone.path.read_bytes()


def test_preprocessing_equals_that_of_the_image_processor(converted):
    _, folder, backbone = converted
    assert backbone.preprocessing is not None
    rng = np.random.default_rng(0)
    # A shape whose longer edge comes out whole; contrasts at which bicubic stays within 0 to 255: Pillow cuts off what goes beyond.
    coarse = rng.integers(80, 176, (2, 20, 30, 3), dtype=np.uint8)
    images = coarse.repeat(4, axis=1).repeat(4, axis=2)
    processor = transformers.AutoImageProcessor.from_pretrained(folder, backend="pil")
    expected = processor(list(images), return_tensors="np")["pixel_values"]
    got = preprocessed(images, backbone.preprocessing)
    assert got.shape == expected.shape
    # Pillow rounds to whole grey levels after resizing, once for each axis.
    assert np.abs(got - expected).max() <= 1.5 / 255 / 0.2


def test_random_weights_come_from_the_seed(tmp_path):
    save("vit", tmp_path / "vit")
    out = tmp_path / "model.onnx"
    run = convert_command(
        f"hf:{tmp_path / 'vit'}", "-o", out, "--weights", "none", "--seed", 3, "--preprocess", "tf"
    )
    assert run.returncode == 0, run.stderr
    backbone = load_backbone(out)
    assert backbone.source is not None
    assert (backbone.source["weights"], backbone.source["seed"]) == ("none", 3)
    assert backbone.preprocessing is not None
    assert backbone.preprocessing.image_mean == (0.5, 0.5, 0.5)
    torch.manual_seed(3)
    twin = transformers.AutoModelForImageClassification.from_config(SMALL["vit"][0])
    name = "vit.embeddings.patch_embeddings.projection.weight"
    tensors = {tensor.name: tensor for tensor in backbone.proto.graph.initializer}
    assert np.array_equal(numpy_helper.to_array(tensors[name]), twin.state_dict()[name].numpy())


def test_a_family_needs_no_network_and_takes_its_default_size(tmp_path, no_network):
    out = tmp_path / "model.onnx"
    run = convert_command("hf:mobilenet_v1", "-o", out, "--weights", "none")
    assert run.returncode == 0, run.stderr
    backbone = load_backbone(out)
    assert (backbone.input.height, backbone.input.width) == (224, 224)
    # MobileNet without its top, and the two classes of transformers' default configuration.
    assert backbone.n_parameters == 3_206_976 + 2 * (1024 + 1)


def test_a_bare_model_with_weights_missing_says_so(tmp_path):
    config, _ = SMALL["vit"]
    transformers.ViTModel(config, add_pooling_layer=False).save_pretrained(tmp_path / "vit")
    out = tmp_path / "model.onnx"
    run = convert_command(f"hf:{tmp_path / 'vit'}", "-o", out)
    assert run.returncode == 0, run.stderr
    assert "no weights for pooler.dense.bias, pooler.dense.weight: they are random" in run.stderr
    backbone = load_backbone(out)
    assert backbone.source is not None
    assert backbone.source["weights_missing"] == ["pooler.dense.bias", "pooler.dense.weight"]
    assert "pooler" in [layer.name for layer in backbone.layers]


def test_without_network_one_line_names_what_can_be_done(tmp_path, no_network):
    run = nrp_onnx("convert", "hf:microsoft/resnet-50", "-o", tmp_path / "x.onnx")
    assert_user_error(run, "weights cannot be downloaded", "--weights none", "local folder")
    assert run.stderr.count("\n") == 1


def test_bad_folders_and_models_are_refused(tmp_path):
    empty, text, damaged = (tmp_path / name for name in ("empty", "text", "damaged"))
    empty.mkdir()
    transformers.BertConfig(
        hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8
    ).save_pretrained(text)
    save("vit", damaged)
    save("vit", tmp_path / "unread")
    (tmp_path / "unread" / "preprocessor_config.json").write_text("{no json")
    (damaged / "model.safetensors").write_bytes(b"no weights")
    out = tmp_path / "x.onnx"
    refused: dict[tuple[str, ...], list[str]] = {
        (f"hf:{empty}",): ["hf:empty", "no model that transformers can read", "save_pretrained"],
        (f"hf:{text}", "--weights", "none"): ["images alone", "BertModel", "input_ids"],
        (f"hf:{damaged}",): ["hf:damaged", "the weights cannot be read"],
        (f"hf:{damaged}", "--weights", "imagenet"): ["no such weights", "'imagenet'"],
        (f"hf:{tmp_path / 'unread'}",): ["hf:unread, preprocessor_config.json", "cannot be read"],
    }
    for arguments, parts in refused.items():
        assert_one_line_error(convert_command(*arguments, "-o", out), *parts)
    assert not out.exists()


def test_a_preprocessor_config_without_a_known_processor_is_read_as_it_stands(tmp_path):
    folder, out = tmp_path / "dino", tmp_path / "model.onnx"
    transformers.Dinov2WithRegistersModel(
        transformers.Dinov2WithRegistersConfig(
            hidden_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=28, patch_size=14
        )
    ).save_pretrained(folder)
    settings = {"image_mean": [0.4, 0.5, 0.6], "image_std": [0.2, 0.25, 0.3], "size": 32,
                "crop_size": {"height": 28, "width": 28}}  # fmt: skip
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    run = convert_command(f"hf:{folder}", "-o", out)
    assert run.returncode == 0, run.stderr
    assert "names no image processor that transformers knows" in run.stderr
    assert "imagenet" not in run.stderr
    spec = load_backbone(out).preprocessing
    assert spec is not None
    assert (spec.size, spec.crop_size, spec.rescale_factor) == (32, (28, 28), 1 / 255)
    assert (spec.image_mean, spec.image_std) == ((0.4, 0.5, 0.6), (0.2, 0.25, 0.3))
    # What the family's other processors do with the same keys.
    other = transformers.CLIPImageProcessorPil(**settings, resample=2)
    images = np.random.default_rng(0).integers(0, 256, (2, 32, 40, 3), dtype=np.uint8)
    expected = other(list(images), return_tensors="np")["pixel_values"]
    assert np.abs(preprocessed(images, spec) - expected).max() <= 1e-5


def clip(folder: Path) -> Any:
    small = {"hidden_size": 16, "intermediate_size": 24, "num_attention_heads": 2}
    torch.manual_seed(1)
    model = transformers.CLIPModel(
        transformers.CLIPConfig(
            text_config=small | {"num_hidden_layers": 1, "vocab_size": 50},
            vision_config=small | {"num_hidden_layers": 2, "image_size": 32, "patch_size": 8},
            projection_dim=8,
        )
    ).eval()
    model.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(
        json.dumps({"image_mean": [0.4, 0.5, 0.6], "image_std": [0.2, 0.25, 0.3], "size": 32,
                    "crop_size": 32})
    )  # fmt: skip
    return model


def test_of_a_clip_folder_the_vision_tower_is_taken(tmp_path):
    model = clip(tmp_path / "my-clip")
    out = tmp_path / "model.onnx"
    run = convert_command(f"hf:{tmp_path / 'my-clip'}", "-o", out)
    assert run.returncode == 0, run.stderr
    assert run.stderr == (
        "note: hf:my-clip takes images and text: taking the vision tower of clip\n"
    )
    backbone = load_backbone(out)
    assert backbone.source is not None
    assert backbone.source["part"] == "vision tower of clip"
    assert backbone.preprocessing is not None
    assert backbone.preprocessing.image_mean == (0.4, 0.5, 0.6)
    images = torch.randn(2, 3, 32, 32)
    session = ort.InferenceSession(out, providers=["CPUExecutionProvider"])
    tokens, pooled = session.run(["output", "output#2"], {"input": images.numpy()})
    with torch.no_grad():
        expected = model.vision_model(images)
    assert np.allclose(tokens, expected.last_hidden_state.numpy(), atol=1e-4)
    assert np.allclose(pooled, expected.pooler_output.numpy(), atol=1e-4)


def test_a_vision_tower_without_weights_is_refused(tmp_path):
    clip(tmp_path / "my-clip")
    from safetensors.torch import load_file, save_file

    path = tmp_path / "my-clip" / "model.safetensors"
    save_file({f"wrapped.{k}": v for k, v in load_file(path).items()}, path, {"format": "pt"})
    run = convert_command(f"hf:{tmp_path / 'my-clip'}", "-o", tmp_path / "x.onnx")
    assert_one_line_error(run, "weights of its vision tower are not found", "CLIPVisionModel")
