"""Wrapped PyTorch modules: unwrapped and converted, or one line; batches that are mixed: refused."""

import numpy as np
import onnxruntime as ort
import pytest
import torch
from torch import Tensor, nn

from nrp_converters.converted_model import ConvertedModel
from nrp_converters.parity import with_parity
from nrp_converters.torch.modules import convert
from nrp_onnx import convert as convert_model
from nrp_onnx.backbone.preprocessing import PRESETS
from nrp_onnx.errors import ModelError
from tests.command_line import assert_one_line_error, convert_command

#: Together they take over ten seconds of a core.
pytestmark = pytest.mark.slow

EXAMPLE = torch.zeros(1, 3, 16, 16)


def plain() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 3, 2, 1)
    ).eval()


class Nested(nn.Module):
    """One part is wrapped by torch.compile, one compiled in place."""

    def __init__(self) -> None:
        super().__init__()
        self.first = torch.compile(plain())
        self.second = nn.Conv2d(4, 2, 3)
        self.second.compile()

    def forward(self, x: Tensor):
        return self.second(self.first(x))


def exported(batch: int | None) -> torch.export.ExportedProgram:
    axes = ({0: torch.export.Dim("n")},) if batch is None else None
    return torch.export.export(plain(), (torch.rand(batch or 2, 3, 16, 16),), dynamic_shapes=axes)


def outputs(model: ConvertedModel, images: Tensor) -> dict[str, np.ndarray]:
    session = ort.InferenceSession(
        model.onnx.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, {"input": images.numpy()}), strict=True))


@pytest.mark.parametrize(
    "wrap",
    [
        lambda module: nn.DataParallel(torch.compile(module)),  # type: ignore[type-var]
        lambda _: exported(None),
        torch.fx.symbolic_trace,
    ],
    ids=["data_parallel_compiled", "exported", "symbolically_traced"],
)
def test_what_is_wrapped_converts_as_without_the_wrapping(wrap):
    module = plain()
    converted = convert_model(wrap(module), EXAMPLE, preprocessing="raw")
    assert [(layer.name, layer.op) for layer in converted.layers] == [
        ("0", "Conv2d"), ("1", "BatchNorm2d"), ("2", "ReLU"), ("3", "Conv2d"),
    ]  # fmt: skip
    images = torch.randn(3, 3, 16, 16)
    got = outputs(converted, images)
    with torch.no_grad():
        assert np.allclose(got["1"], module[:2](images).numpy(), atol=1e-5)
        assert np.allclose(got["output"], module(images).numpy(), atol=1e-5)


def test_parts_that_are_compiled_keep_their_names():
    torch.manual_seed(1)
    module = Nested()
    converted = convert(module, EXAMPLE, preprocessing=PRESETS["raw"])
    names = [layer.name for layer in converted.layers]
    assert names == ["first.0", "first.1", "first.2", "first.3", "first", "second"]
    images = torch.randn(2, 3, 16, 16)
    got = outputs(converted, images)
    with torch.no_grad(), torch.compiler.set_stance("force_eager"):
        assert np.allclose(got["first"], module.first(images).numpy(), atol=1e-5)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: torch.jit.script(plain()), ["TorchScript", "torch.jit.script", "nn.Module that"]),
        (lambda: torch.jit.trace(plain(), EXAMPLE), ["TorchScript", "torch.jit.trace"]),
        (
            lambda: nn.Sequential(plain(), torch.jit.script(nn.ReLU())),
            ["Sequential, submodule 1: ", "TorchScript"],
        ),
        (lambda: exported(1), ["fixed number of images", "ExportedProgram for 1", "Dim('batch')"]),
        (lambda: exported(1).module(), ["calls no submodules", "Give the ExportedProgram itself"]),
    ],
    ids=["scripted", "traced", "part", "exported", "exported_module"],
)
def test_kinds_that_cannot_be_converted_are_named(make, says):
    with pytest.raises(ModelError) as caught:
        convert(make(), EXAMPLE, preprocessing=PRESETS["raw"])
    for words in says:
        assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_scripted_module_is_one_line_on_the_command_line(tmp_path):
    (tmp_path / "net.py").write_text(
        "import torch\nfrom torch import nn\n\n"
        "def make():\n    return torch.jit.script(nn.Sequential(nn.Conv2d(3, 4, 3)).eval())\n"
    )
    out = tmp_path / "x.onnx"
    run = convert_command(f"torch:{tmp_path / 'net.py'}:make", "-o", out, "--preprocess", "raw")
    assert_one_line_error(run, "net.py:make", "TorchScript", "RecursiveScriptModule")
    assert not out.exists()


def test_a_batch_norm_without_statistics_is_refused_by_name():
    module = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.Sequential(nn.BatchNorm2d(4, track_running_stats=False), nn.ReLU())
    )
    with pytest.raises(ModelError, match=r"layer 1\.0: .*see each other.*track_running_stats"):
        convert(module, EXAMPLE, preprocessing=PRESETS["raw"])
    # Norms of an image's own statistics are no such thing.
    module[1] = nn.InstanceNorm2d(4)
    assert convert(module, EXAMPLE, preprocessing=PRESETS["raw"]).layers[-1].name == "1"


class OfTheBatch(nn.Module):
    """Takes the mean of the batch off by hand."""

    def forward(self, x: Tensor):
        return x - x.mean(0, keepdim=True)


def test_images_that_see_each_other_are_refused_whatever_mixes_them():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(3, 4, 3), OfTheBatch(), nn.ReLU())
    converted = convert(module, EXAMPLE, preprocessing=PRESETS["raw"])
    with pytest.raises(ModelError, match="layer 1 of an image depends on the images beside it"):
        with_parity(converted, allow_mismatch=True)
