"""nn.Module to ONNX: the layers, their names and numbers, the metadata, and what is refused."""

import ast
import json
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from torch import Tensor, nn

from nrp_converters.converted_model import ConvertedModel
from nrp_converters.request import Request
from nrp_converters.specs import convert_spec
from nrp_converters.torch.modules import convert
from nrp_onnx.backbone.model import load_backbone
from nrp_onnx.backbone.preprocessing import PRESETS, Preprocessing
from nrp_onnx.errors import ModelError, NrpOnnxError, OptionError
from tests.converters.models import (
    Awkward,
    Branching,
    BrightnessGate,
    ChannelsLast,
    Eigenvalues,
    OneImageOnly,
    PairsOnly,
    ResidualNet,
    TokenNet,
    randomise_batch_norms,
)

#: Together they take over ten seconds of a core.
pytestmark = pytest.mark.slow

EXAMPLE = torch.zeros(1, 3, 16, 16)


@pytest.fixture(scope="module")
def residual() -> tuple[ResidualNet, ConvertedModel]:
    torch.manual_seed(0)
    module = ResidualNet()
    randomise_batch_norms(module)
    source = {"weights": "seed 0", "version": "of its own"}
    model = convert(module, EXAMPLE, preprocessing=PRESETS["imagenet"], source=source)
    return module.eval(), model


@pytest.fixture(scope="module")
def tokens() -> tuple[TokenNet, ConvertedModel]:
    torch.manual_seed(0)
    module = TokenNet()
    return module.eval(), convert(module, EXAMPLE, preprocessing=PRESETS["raw"])


def run(model: ConvertedModel, images: Tensor) -> dict[str, np.ndarray]:
    """All outputs of the ONNX model, by their names."""
    session = ort.InferenceSession(
        model.onnx.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, {"input": images.numpy()}), strict=True))


def hooked_layers(module: nn.Module, images: Tensor) -> dict[str, Tensor]:
    """What submodules that are called once return in eager PyTorch."""
    found: dict[str, Tensor] = {}

    def keep(path: str, output: object) -> None:
        output = output[0] if isinstance(output, tuple) else output
        if isinstance(output, Tensor):
            found[path] = output.clone()

    handles = [
        part.register_forward_hook(lambda _, __, output, path=path: keep(path, output))
        for path, part in module.named_modules()
        if path
    ]
    with torch.no_grad():
        module(images)
    for handle in handles:
        handle.remove()
    return found


def assert_same(got: np.ndarray, expected: Tensor, name: str, tolerance: float = 1e-4) -> None:
    """Equal, relative to the layer's own scale."""
    assert got.shape == tuple(expected.shape), name
    error = np.abs(got - expected.numpy()).max() / expected.abs().max().item()
    assert error <= tolerance, f"{name}: relative error {error:.2g}"


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_every_layer_equals_torch_without_in_place_steps(residual, batch):
    module, model = residual
    images = torch.randn(batch, 3, 16, 16, generator=torch.Generator().manual_seed(batch))
    got = run(model, images)
    with torch.no_grad():
        expected = module.layers_without_in_place_steps(images)
        assert_same(got["output"], module(images), "output")
    assert [layer.name for layer in model.layers] == list(expected)
    for layer in model.layers:
        assert_same(got[layer.tensor], expected[layer.name], layer.name)
    # What an in-place ReLU, or the in-place sum, would have overwritten.
    assert got["bn1"].min() < 0
    assert got["stage.0.1"].min() < 0
    assert not np.array_equal(got["stage"], got["relu#2"])


@pytest.mark.parametrize("bright", [True, False])
def test_a_branch_that_is_fixed_when_the_model_is_traced(bright):
    torch.manual_seed(0)
    module = Branching(bright).train()
    model = convert(module, EXAMPLE, preprocessing=PRESETS["raw"])
    assert [layer.name for layer in model.layers] == ["one" if bright else "other", "relu"]
    images = torch.randn(3, 3, 16, 16)
    got, expected = run(model, images), hooked_layers(module.eval(), images)
    for layer in model.layers:
        assert_same(got[layer.tensor], expected[layer.name], layer.name)
    # The branch on the image's shape was taken: the layer after it has half the size.
    assert got["relu"].shape == (3, 4, 8, 8)
    assert got[model.layers[0].tensor].min() < 0


def test_channels_last_is_recorded_where_a_module_tells():
    torch.manual_seed(0)
    module = ChannelsLast().eval()
    model = convert(module, EXAMPLE, preprocessing=PRESETS["raw"])
    images = torch.randn(2, 3, 16, 16)
    got, expected = run(model, images), hooked_layers(module, images)
    for layer in model.layers:
        assert_same(got[layer.tensor], expected[layer.name], layer.name)
    # `permute` and `block` are told by the layer norms that read them; a tuple's first is the layer.
    table = {layer.name: (layer.shape, layer.layout) for layer in model.layers}
    assert table.pop("block.gated")[0] == (8, 8, 8)  # nothing tells what a product's layout is
    assert table == {
        "conv": ((8, 8, 8), "NCHW"),
        "permute": ((8, 8, 8), "NHWC"),
        "block.norm": ((8, 8, 8), "NHWC"),
        "block.up": ((8, 8, 16), "NHWC"),
        "block.act": ((8, 8, 16), "NHWC"),
        "block.drop": ((8, 8, 16), "NHWC"),
        "block.down": ((8, 8, 8), "NHWC"),
        "block.gated.gate": ((8, 8, 8), "NHWC"),
        "block": ((8, 8, 8), "NHWC"),
        "norm": ((8, 8, 8), "NHWC"),
    }


def test_layer_table_of_a_cnn(residual):
    _, model = residual
    table = {layer.name: layer for layer in model.layers}
    assert [layer.depth for layer in model.layers] == list(range(13))
    assert table["conv1"].op == "Conv2d"
    assert table["stage"].op == "Sequential"
    assert (table["conv1"].shape, table["conv1"].layout) == ((8, 16, 16), "NCHW")
    assert (table["pool"].shape, table["pool"].layout) == ((8, 1, 1), "NCHW")
    assert (table["fc"].shape, table["fc"].layout) == ((5,), "NC")
    assert all(layer.tensor == layer.name for layer in model.layers)


def test_batch_norms_are_not_folded_into_convolutions(residual):
    _, model = residual
    ops = Counter(node.op_type for node in model.onnx.graph.node)
    assert (ops["Conv"], ops["BatchNormalization"]) == (2, 2)


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_every_layer_of_a_token_model_equals_torch(tokens, batch):
    module, model = tokens
    images = torch.randn(batch, 3, 16, 16, generator=torch.Generator().manual_seed(batch))
    got, expected = run(model, images), hooked_layers(module, images)
    assert [layer.name for layer in model.layers] == [
        "patches", "norm", "attention", "mlp.0", "mlp.1", "mlp.2", "mlp", "head",
    ]  # fmt: skip
    for layer in model.layers:
        assert_same(got[layer.tensor], expected[layer.name], layer.name)
    with torch.no_grad():
        results = module(images)
    # The mean over the batch is no answer for an image, so it is left out.
    assert list(got)[:2] == ["output", "output#2"]
    assert_same(got["output"], results["logits"], "logits")
    assert_same(got["output#2"], results["tokens"], "tokens")


def test_token_layers_have_a_token_layout(tokens):
    _, model = tokens
    table = {layer.name: layer for layer in model.layers}
    assert (table["mlp"].shape, table["mlp"].layout) == ((17, 12), "NTC")
    assert (table["patches"].shape, table["patches"].layout) == ((12, 4, 4), "NCHW")
    assert (table["head"].shape, table["head"].layout) == ((4,), "NC")


def test_saved_model_is_valid_and_loads_as_a_backbone(residual, tokens, tmp_path):
    for name, (module, model) in {"residual": residual, "tokens": tokens}.items():
        path = tmp_path / f"{name}.onnx"
        model.save(path)
        onnx.checker.check_model(str(path), full_check=True)
        backbone = load_backbone(path)
        assert backbone.layers == model.layers
        assert backbone.n_parameters == sum(weight.numel() for weight in module.parameters())
        assert (backbone.input.layout, backbone.input.height, backbone.input.batch) == (
            "NCHW", 16, None,
        )  # fmt: skip
    assert sorted(file.name for file in tmp_path.iterdir()) == ["residual.onnx", "tokens.onnx"]


def test_batch_axis_is_named_and_outputs_are_typed(residual, tokens):
    for _, model in (residual, tokens):
        graph = model.onnx.graph
        (image,) = graph.input
        assert image.name == "input"
        for value in (image, *graph.output):
            kind = value.type.tensor_type
            assert kind.elem_type == onnx.TensorProto.FLOAT
            assert kind.shape.dim[0].dim_param == "batch", value.name
            assert all(dim.dim_value > 0 for dim in list(kind.shape.dim)[1:]), value.name
        shapes = [
            [dim.dim_value for dim in out.type.tensor_type.shape.dim][1:] for out in graph.output
        ]
        layers = shapes[-len(model.layers) :]
        assert [tuple(shape) for shape in layers] == [layer.shape for layer in model.layers]


def test_metadata(residual):
    module, model = residual
    metadata = {entry.key: entry.value for entry in model.onnx.metadata_props}
    assert set(metadata) == {"nrp_onnx.layers", "nrp_onnx.preprocessing", "nrp_onnx.source"}
    assert [row["name"] for row in json.loads(metadata["nrp_onnx.layers"])][:3] == [
        "conv1", "bn1", "relu#1",
    ]  # fmt: skip
    preprocessing = json.loads(metadata["nrp_onnx.preprocessing"])
    assert preprocessing["size"] == {"height": 16, "width": 16}
    assert (preprocessing["layout"], preprocessing["dtype"]) == ("NCHW", "float32")
    assert preprocessing["image_mean"] == [0.485, 0.456, 0.406]
    assert json.loads(metadata["nrp_onnx.source"]) == {
        "framework": "torch",
        "version": "of its own",
        "class": "tests.converters.models.ResidualNet",
        "n_parameters": sum(weight.numel() for weight in module.parameters()),
        "weights": "seed 0",
    }
    assert model.onnx.producer_name == "pytorch"


def test_no_local_path_is_in_the_file_but_module_paths_are(residual, tmp_path):
    _, model = residual
    model.save(tmp_path / "model.onnx")
    content = (tmp_path / "model.onnx").read_bytes()
    for local in (
        __file__,
        Path(__file__).parent,
        sys.prefix,
        Path.cwd(),
        Path(torch.__file__).parent,
    ):
        assert str(local).encode() not in content
    assert b"stack_trace" not in content
    assert b".py" not in content
    scopes = [
        ast.literal_eval(entry.value)
        for node in model.onnx.graph.node
        for entry in node.metadata_props
        if entry.key == "pkg.torch.onnx.name_scopes"
    ]
    assert any(scope[:3] == ["", "stage", "stage.0"] for scope in scopes)


def test_the_module_is_left_as_it_was():
    torch.manual_seed(0)
    module = Awkward().train()
    module.output.eval()  # as one who fine-tunes with a frozen part has it
    module.output.weight.requires_grad_(False)
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    weights = list(module.parameters())
    convert(module, EXAMPLE, preprocessing=PRESETS["raw"])
    assert_untouched(module)
    assert module.training
    assert module.relu.training
    assert not module.output.training
    assert all(one is other for one, other in zip(module.parameters(), weights, strict=True))
    assert [weight.requires_grad for weight in weights] == [False, True]
    after = module.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], before[name]) for name in before)


def assert_untouched(module: nn.Module) -> None:
    for part in module.modules():
        assert not part._forward_hooks
        assert not part._forward_pre_hooks
    assert torch.backends.mha.get_fastpath_enabled()


def test_clashing_names_keep_the_layer_name_and_change_the_tensor():
    torch.manual_seed(0)
    module = Awkward()
    model = convert(module, EXAMPLE, preprocessing=PRESETS["raw"])
    # `windows` folds other axes into the batch and `sizes` returns no tensor: neither is a layer.
    assert [layer.name for layer in model.layers] == ["input", "output", "relu"]
    names = [output.name for output in model.onnx.graph.output]
    assert names == ["output", *(layer.tensor for layer in model.layers)]
    assert len({"input", *names}) == 5
    made = [name for node in model.onnx.graph.node for name in node.output]
    assert len(made) == len(set(made))
    images = torch.randn(3, 3, 16, 16)
    got, expected = run(model, images), hooked_layers(module, images)
    for layer in model.layers:
        assert_same(got[layer.tensor], expected[layer.name], layer.name)


def test_half_precision_gives_a_half_precision_model():
    torch.manual_seed(0)
    module = ResidualNet().half().eval()
    model = convert(module, EXAMPLE.half(), preprocessing=PRESETS["raw"])
    images = torch.randn(2, 3, 16, 16).half()
    got = run(model, images)
    assert {array.dtype for array in got.values()} == {np.dtype(np.float16)}
    with torch.no_grad():
        assert_same(got["output"].astype(np.float32), module(images).float(), "output", 1e-2)
    metadata = {entry.key: entry.value for entry in model.onnx.metadata_props}
    assert json.loads(metadata["nrp_onnx.preprocessing"])["dtype"] == "float16"


@pytest.mark.parametrize(
    ("culprit", "says"),
    [
        (BrightnessGate(), ["culprit.1", "data-dependent", "Keep forward free of"]),
        (PairsOnly(), ["batch", "constant (2)", "len(x)", "Keep forward free of"]),
        (Eigenvalues(), ["cannot be expressed in ONNX", "eig", "Replace that operation"]),
        (OneImageOnly(), ["culprit.1.fc", "does not run on 2 images", "any batch size"]),
    ],
)
def test_what_cannot_be_converted_is_said_in_one_line(culprit, says, capfd):
    module = nn.Sequential()
    module.add_module("culprit", nn.Sequential(nn.Conv2d(3, 3, 1), culprit))
    module.train()
    with pytest.raises(ModelError) as caught:
        convert(module, torch.zeros(1, 3, 8, 8), preprocessing=PRESETS["raw"])
    message = str(caught.value)
    assert "\n" not in message
    for words in says:
        assert words in message
    printed = capfd.readouterr()
    assert (printed.out, printed.err) == ("", "")
    assert_untouched(module)
    assert all(part.training for part in module.modules())


@pytest.mark.parametrize(
    ("module", "example", "options", "error", "says"),
    [
        ({"conv.weight": 1}, EXAMPLE, {}, ModelError, "found dict. Build the model"),
        (ResidualNet(), torch.zeros(3, 16, 16), {}, ModelError, "found (3, 16, 16) float32"),
        (ResidualNet(), EXAMPLE.double(), {}, ModelError, "float64"),
        (ResidualNet(), torch.zeros(1, 1, 16, 16), {}, ModelError, "shape (batch, 3, H, W)"),
        (ResidualNet(), EXAMPLE.half(), {}, ModelError, "submodule conv1: the model does not run"),
        (BrightnessGate(), EXAMPLE, {}, ModelError, "no layer was found"),
        (nn.Linear(2**15, 2**15, device="meta"), EXAMPLE, {}, ModelError, "4.3 GB"),
        (ResidualNet(), EXAMPLE, {"source": {"file": Path("x")}}, OptionError, "as JSON"),
        (
            ResidualNet(),
            EXAMPLE,
            {"preprocessing": Preprocessing(size=(32, 32))},
            OptionError,
            "expected 16 x 16; found 32 x 32",
        ),
    ],
)
def test_wrong_input_is_refused(module, example, options, error, says):
    with pytest.raises(NrpOnnxError) as caught:
        convert(module, example, **{"preprocessing": PRESETS["raw"], **options})
    assert type(caught.value) is error
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_factory_is_seeded_and_the_random_numbers_of_the_caller_go_on(tmp_path: Path) -> None:
    (tmp_path / "random_net.py").write_text(
        "from torch import nn\n\ndef make():\n    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())\n"
    )
    request = Request(input_size=(16, 16), preprocessing=PRESETS["raw"], seed=3)
    torch.manual_seed(11)
    expected = torch.rand(4)
    torch.manual_seed(11)
    first = convert_spec(f"torch:{tmp_path / 'random_net.py'}:make", request)
    torch.testing.assert_close(torch.rand(4), expected, atol=0, rtol=0)
    second = convert_spec(f"torch:{tmp_path / 'random_net.py'}:make", request)
    weights = [
        onnx.numpy_helper.to_array(tensor)
        for converted in (first, second)
        for tensor in converted.onnx.graph.initializer
        if len(tensor.dims) == 4
    ]
    assert len(weights) == 2
    assert np.array_equal(weights[0], weights[1])
