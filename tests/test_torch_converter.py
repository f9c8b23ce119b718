"""The torch converter: every layer equals PyTorch's, under PyTorch's names."""

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from torch import Tensor, nn

from nrp_onnx.backbone.preprocessing import PRESETS
from nrp_onnx.converters.torch import convert
from nrp_onnx.errors import ModelError


class Tricky(nn.Module):
    """Batch norm before an in-place ReLU, a residual sum, and a module that is used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3, padding=1)
        self.norm = nn.BatchNorm2d(6)
        self.act = nn.ReLU(inplace=True)
        self.twice = nn.Conv2d(6, 6, 1)
        self.fc = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.norm(self.conv(x)))
        x = x + self.twice(self.twice(x))
        return self.fc(x.mean(dim=(2, 3)))


def test_layers_have_the_names_and_values_of_pytorch(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = Tricky()
    module.norm.running_mean += 0.3
    module.train()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    made = convert(module, torch.zeros(1, 3, 16, 16), preprocessing=PRESETS["imagenet"])
    assert module.training
    assert not module.conv._forward_hooks
    for name, value in module.state_dict().items():
        assert torch.equal(value, before[name])
    path = tmp_path / "tricky.onnx"
    made.save(path)
    onnx.checker.check_model(onnx.load(path), full_check=True)
    assert [layer.name for layer in made.layers] == [
        "conv", "norm", "act", "twice#1", "twice#2", "fc"
    ]  # fmt: skip

    module.eval()
    x = torch.randn(5, 3, 16, 16)
    with torch.no_grad():
        conv = module.conv(x)
        norm = module.norm(conv)
        act = torch.relu(norm)
        once = module.twice(act)
        again = module.twice(once)
        fc = module.fc((act + again).mean(dim=(2, 3)))
    assert norm.min() < -0.1
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [layer.tensor for layer in made.layers]
    for batch in (1, 2, 5):
        found = session.run(names, {"input": x[:batch].numpy()})
        for value, expected in zip(found, (conv, norm, act, once, again, fc), strict=True):
            np.testing.assert_allclose(value, expected[:batch], atol=1e-5)


def test_metadata_says_what_the_model_is_and_nothing_of_the_machine(
    model_path: Path, network: nn.Module
) -> None:
    proto = onnx.load(model_path)
    metadata = {entry.key: entry.value for entry in proto.metadata_props}
    source = json.loads(metadata["nrp_onnx.source"])
    assert source["n_parameters"] == sum(p.numel() for p in network.parameters())
    spec = json.loads(metadata["nrp_onnx.preprocessing"])
    assert spec["size"] == {"height": 32, "width": 32}
    assert proto.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"
    assert proto.producer_name == "pytorch"
    assert str(Path(__file__).parent).encode() not in model_path.read_bytes()
    assert b"site-packages" not in model_path.read_bytes()


def test_control_flow_on_values_is_refused_in_one_line() -> None:
    class Branching(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x * 2 if x.sum() > 0 else x

    with pytest.raises(ModelError) as caught:
        convert(Branching(), torch.zeros(1, 3, 8, 8), preprocessing=PRESETS["raw"])
    assert "Branching" in str(caught.value)
    assert "\n" not in str(caught.value)
