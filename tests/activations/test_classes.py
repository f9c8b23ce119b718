"""The likeliest classes of photographs: of trained networks, and against an independent computation."""

import json
from pathlib import Path

import matplotlib
import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from nrp_converters.torch import modules as torch_modules
from nrp_onnx.activations.classes import read_labels, top_classes
from nrp_onnx.backbone.model import load_backbone
from nrp_onnx.backbone.preprocessing import PRESETS
from nrp_onnx.notes import Notes
from nrp_onnx.scoring.choices import choose_preprocessing
from tests.command_line import assert_one_line_error, convert_command

#: A portrait of Grace Hopper in her uniform.
PORTRAIT = Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg"
#: Of ImageNet's classes, in the order of their WordNet numbers.
MILITARY_UNIFORM = 652


def network() -> nn.Sequential:
    torch.manual_seed(3)
    return nn.Sequential(
        nn.Conv2d(3, 6, 5, 4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 7)
    )


@pytest.fixture(scope="module")
def desk(tmp_path_factory) -> Path:
    folder: Path = tmp_path_factory.mktemp("photographs")
    example = torch.zeros(1, 3, 32, 32)
    for name, module in {"make": network(), "maps": network()[:2]}.items():
        model = torch_modules.convert(module, example, preprocessing=PRESETS["tf"])
        model.save(folder / f"{name}.onnx")
    rng = np.random.default_rng(0)
    for name in ("a.png", "b.png"):
        Image.fromarray(rng.integers(0, 256, (32, 32, 3), np.uint8)).save(folder / name)
    (folder / "labels.txt").write_text("\n".join(f"[b]kind {i}[/]\x1b" for i in range(7)))
    (folder / "few.json").write_text(json.dumps(["one", "two"]))
    return folder


def convert(desk: Path, *options: object, model: str = "make"):
    return convert_command(f"onnx:{desk / model}.onnx", "-o", desk / "x.onnx", *options)


def expected(desk: Path, name: str) -> np.ndarray:
    """Probabilities by PyTorch."""
    image = np.asarray(Image.open(desk / name), np.float32) / 127.5 - 1
    with torch.no_grad():
        chances: np.ndarray = (
            network()(torch.from_numpy(image).permute(2, 0, 1)[None]).softmax(1)[0].numpy()
        )
    return chances


def test_the_classes_of_photographs_are_those_of_pytorch(desk):
    run = convert(desk, "--photo", desk / "a.png", "--photo", desk / "b.png", "--json",
                  "--labels", desk / "labels.txt")  # fmt: skip
    assert run.returncode == 0, run.stderr
    content = json.loads(run.stdout)
    assert content["layers"] == ["0", "1", "2", "3", "4"]
    assert content["parity"]["max_relative_error"] < 1e-4
    for photograph, name in zip(content["photographs"], ("a.png", "b.png"), strict=True):
        chances = expected(desk, name)
        assert photograph["file"] == str(desk / name)
        classes = photograph["classes"]
        assert [seen["number"] for seen in classes] == list(np.argsort(-chances)[:5])
        assert [seen["label"] for seen in classes] == [
            f"[b]kind {seen['number']}[/]\x1b" for seen in classes
        ]
        found = [seen["probability"] for seen in classes]
        assert np.allclose(found, np.sort(chances)[::-1][:5], atol=1e-5)


def test_the_table_shows_names_as_they_are_and_nothing_raw(desk):
    run = convert(desk, "--photo", desk / "a.png", "--labels", desk / "labels.txt")
    assert run.returncode == 0, run.stderr
    best = int(expected(desk, "a.png").argmax())
    assert f"[b]kind {best}[/]\\x1b" in run.stdout
    assert "\x1b" not in run.stdout
    assert f"{expected(desk, 'a.png').max():.3f}" in run.stdout


@pytest.mark.parametrize(
    ("options", "model", "says"),
    [
        (["--photo", "missing.png"], "make", ["missing.png", "the image does not open"]),
        (["--photo", "a.png", "--labels", "few.json"], "make", ["expected 7 labels", "found 2"]),
        (["--photo", "a.png", "--labels", "a.png"], "make", ["these are no labels"]),
        (["--labels", "few.json"], "make", ["nothing to label", "--photo FILE"]),
        (["--photo", "a.png"], "maps", ["no scores of classes", "(batch, 6, 7, 7)"]),
    ],
)
def test_what_cannot_be_shown_is_one_line(desk, options, model, says):
    given = [option if option.startswith("--") else desk / option for option in options]
    assert_one_line_error(convert(desk, *given, model=model), *says)


def test_labels_of_every_kind(tmp_path):
    contents = {
        "a.txt": "tench\r\ngreat white shark \n\n",
        "b.json": '["tench", "great white shark"]',
        "c.json": '{"1": "great white shark", "0": "tench"}',
        "d.json": '{"0": ["n01440764", "tench"], "1": ["n01484850", "great white shark"]}',
    }
    for name, content in contents.items():
        (tmp_path / name).write_text(content)
        assert read_labels(tmp_path / name) == ["tench", "great white shark"], name


@pytest.mark.parametrize(
    "name", ["EfficientNetLite0.onnx", "GoogLeNet.onnx", "MobileNetV1_1.0_224.onnx"]
)
def test_trained_networks_know_a_photograph(shared: Path, name: str) -> None:
    backbone = load_backbone(shared / "backbones" / name)
    notes = Notes()
    labels = [f"class {i}" for i in range(1000)]
    preprocessing = choose_preprocessing(backbone, None, notes)
    (seen,) = top_classes(backbone, preprocessing, [PORTRAIT], labels, notes)
    assert seen.classes[0].label == f"class {MILITARY_UNIFORM}"
    # Of 1001 classes the first is the background.
    assert ["taken for the background" in said for said in notes.said] == (
        [True] if name.startswith("MobileNet") else []
    )


def test_filters_in_another_order_show_although_parity_cannot_see_them(shared: Path) -> None:
    import onnx
    from onnx import numpy_helper

    backbone = load_backbone(shared / "backbones" / "EfficientNetLite0.onnx")
    weights = {tensor.name: tensor for tensor in backbone.proto.graph.initializer}
    first = next(node for node in backbone.proto.graph.node if node.op_type == "Conv")
    kernel = weights[first.input[1]]
    turned = numpy_helper.to_array(kernel)[::-1]
    kernel.CopyFrom(onnx.numpy_helper.from_array(np.ascontiguousarray(turned), kernel.name))
    preprocessing = choose_preprocessing(backbone, None, Notes())
    (seen,) = top_classes(backbone, preprocessing, [PORTRAIT])
    assert MILITARY_UNIFORM not in [one.number for one in seen.classes]
