"""Pruning against PyTorch's own, and against NumPy on the weights in the file."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import numpy_helper
from torch import nn
from torch.nn.utils import prune as torch_prune

from nrp_converters.torch.modules import convert
from nrp_onnx.backbone.layers import SOURCE_KEY
from nrp_onnx.backbone.model import load_backbone
from nrp_onnx.backbone.preprocessing import PRESETS
from nrp_onnx.backbone.pruning import measured_sparsity, prune_model
from nrp_onnx.backbone.weight_files import external_tensors
from nrp_onnx.errors import ModelError, OptionError
from tests.command_line import assert_user_error, nrp_onnx


class Mixed(nn.Module):
    """Convolutions in groups, normalisation, a product of tokens with a matrix, a dense layer."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.tokens = nn.Linear(8, 6, bias=False)
        self.head = nn.Linear(6 * 64, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.depthwise(self.norm(self.stem(x)).relu()).relu()
        scores: torch.Tensor = self.head(self.tokens(x.flatten(2).transpose(1, 2)).flatten(1))
        return scores


def _mixed() -> Mixed:
    torch.manual_seed(1)
    module = Mixed().eval()
    nn.init.uniform_(module.norm.weight, 0.001, 0.01)  # the least of all numbers, and no weights
    return module


def _modules(module: nn.Module) -> list[nn.Conv2d | nn.Linear]:
    return [part for part in module.modules() if isinstance(part, nn.Conv2d | nn.Linear)]


def _prune_global(module: nn.Module, share: float) -> None:
    torch_prune.global_unstructured(
        [(part, "weight") for part in _modules(module)],
        pruning_method=torch_prune.L1Unstructured,
        amount=share,
    )


def _prune_layers(module: nn.Module, share: float) -> None:
    for part in _modules(module):
        torch_prune.l1_unstructured(part, "weight", amount=share)


@pytest.fixture(scope="module")
def mixed_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("mixed") / "mixed.onnx"
    convert(_mixed(), torch.zeros(1, 3, 16, 16), preprocessing=PRESETS["tf"]).save(path)
    return path


def _run(path: Path, images: np.ndarray) -> np.ndarray:
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    scores: np.ndarray = session.run(None, {session.get_inputs()[0].name: images})[0]
    return scores


@pytest.mark.parametrize("share", [0.0, 0.3, 0.8])
@pytest.mark.parametrize(
    ("scope", "reference"), [("global", _prune_global), ("layer", _prune_layers)]
)
def test_onnxruntime_gives_what_a_module_pruned_by_pytorch_gives(
    mixed_path: Path,
    tmp_path: Path,
    scope: str,
    reference: Callable[[nn.Module, float], None],
    share: float,
) -> None:
    module, out = _mixed(), tmp_path / "pruned.onnx"
    if share:
        reference(module, share)
    done = prune_model(mixed_path, out, share, scope)
    images = np.random.default_rng(0).standard_normal((4, 3, 16, 16)).astype(np.float32)
    with torch.no_grad():
        expected = module(torch.from_numpy(images)).numpy()
    np.testing.assert_allclose(_run(out, images), expected, rtol=1e-4, atol=1e-5)
    weights = [np.array(part.weight.detach()) for part in _modules(module)]
    assert done.n_zero == sum(int((w == 0).sum()) for w in weights)
    assert done.n_weights == sum(w.size for w in weights)


def test_weights_of_least_magnitude_go_and_all_else_stays(mixed_path: Path, tmp_path: Path) -> None:
    out = tmp_path / "pruned.onnx"
    done = prune_model(mixed_path, out, 0.5)
    before, after = onnx.load(mixed_path), onnx.load(out)
    held = {t.name: numpy_helper.to_array(t) for t in before.graph.initializer}
    kept, gone, untouched = [], [], 0
    for tensor in after.graph.initializer:
        new, old = numpy_helper.to_array(tensor), held[tensor.name]
        assert ((new == old) | (new == 0)).all()
        if (new == old).all():
            untouched += 1
            continue
        kept.append(np.abs(old[new != 0]))
        gone.append(np.abs(old[new == 0]))
    weights = 8 * 27 + 8 * 9 + 8 * 6 + 6 * 64 * 5
    assert (done.n_weights, done.n_zero) == (weights, weights // 2)
    assert np.concatenate(gone).max() < np.concatenate(kept).min()
    assert untouched >= 5  # biases and normalisation
    for proto in (before, after):
        del proto.graph.initializer[:]
    assert before.graph == after.graph
    metadata = [{p.key: p.value for p in proto.metadata_props} for proto in (before, after)]
    sources = [json.loads(entries.pop(SOURCE_KEY)) for entries in metadata]
    assert metadata[0] == metadata[1]
    pruning = sources[1].pop("pruning")
    assert sources[0] == sources[1]
    assert pruning["sparsity"] == measured_sparsity(out) == 0.5
    assert pruning["pruned_sha256"] == load_backbone(mixed_path).sha256


def test_random_weights_are_a_control_of_the_same_sparsity(
    mixed_path: Path, tmp_path: Path
) -> None:
    def zeros(share: float, seed: int | None) -> np.ndarray:
        out = tmp_path / f"{share}-{seed}.onnx"
        prune_model(mixed_path, out, share, random_seed=seed)
        return _zeros(out)

    random = zeros(0.4, 0)
    assert random.sum() == round(0.4 * random.size) == zeros(0.4, None).sum()
    assert (random != zeros(0.4, 1)).any()
    assert zeros(0.7, 0)[random].all()
    # Chance agreement of two sets of 40 %: 16 % of all weights.
    assert (random & zeros(0.4, None)).mean() == pytest.approx(0.16, abs=0.03)

    run = nrp_onnx(
        "prune", mixed_path, "--sparsity", 0.4, "--random", "--seed", 1, "-o", tmp_path / "c.onnx"
    )
    assert run.returncode == 0, run.stderr
    assert (_zeros(tmp_path / "c.onnx") == zeros(0.4, 1)).all()
    share, total = random.mean(), random.size
    assert f"{share:.4f} of its {total:,} weights are zero ({random.sum():,})" in run.stdout


def _zeros(path: Path) -> np.ndarray:
    """Which of all weights are zero, the parameters of rank 2 or more."""
    weights = [numpy_helper.to_array(tensor) for tensor in onnx.load(path).graph.initializer]
    zero: np.ndarray = np.concatenate([w.ravel() for w in weights if w.ndim >= 2]) == 0
    return zero


def test_what_is_zero_already_counts(mixed_path: Path, tmp_path: Path) -> None:
    half, same, random = (tmp_path / f"{name}.onnx" for name in ("half", "same", "random"))
    prune_model(mixed_path, half, 0.5)
    assert prune_model(half, same, 0.2).sparsity == 0.5
    assert prune_model(half, random, 0.6, random_seed=0).sparsity == pytest.approx(0.6, abs=1e-3)


def test_external_data_of_half_precision_and_weights_in_nodes(tmp_path: Path) -> None:
    kernel = np.random.default_rng(0).standard_normal((64, 3, 3, 3)).astype(np.float16)
    matrix = np.random.default_rng(1).standard_normal((64, 8)).astype(np.float16)
    helper = onnx.helper
    nodes = [
        helper.make_node("Constant", [], ["held"], value=numpy_helper.from_array(matrix.T.copy())),
        helper.make_node("Transpose", ["held"], ["matrix"]),
        helper.make_node("Conv", ["x", "kernel"], ["maps"]),
        helper.make_node("GlobalAveragePool", ["maps"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("MatMul", ["flat", "matrix"], ["y"]),
    ]
    x = helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT16, ["batch", 3, 8, 8])
    y = helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT16, ["batch", 8])
    graph = helper.make_graph(nodes, "g", [x], [y], [numpy_helper.from_array(kernel, "kernel")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
    path, out = tmp_path / "half.onnx", tmp_path / "out" / "pruned.onnx"
    onnx.save(model, path, save_as_external_data=True, location="half.bin", size_threshold=0)
    assert external_tensors(onnx.load(path, load_external_data=False))

    done = prune_model(path, out, 0.9)
    pruned = onnx.load(out)
    found = numpy_helper.to_array(pruned.graph.initializer[0])
    held = numpy_helper.to_array(pruned.graph.node[0].attribute[0].t)
    assert found.dtype == held.dtype == np.float16
    n = kernel.size + matrix.size
    assert (found == 0).sum() + (held == 0).sum() == done.n_zero == round(0.9 * n)
    # Magnitudes of 16 bits are often equal: none above the threshold goes, and none below it stays.
    both = np.sort(np.abs(np.concatenate([kernel.ravel(), matrix.ravel()])))
    left = np.abs(np.concatenate([found[found != 0], held[held != 0]]))
    np.testing.assert_array_equal(np.sort(left), both[done.n_zero :])


def test_what_cannot_be_pruned_is_one_line(mixed_path: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.onnx"
    assert_user_error(
        nrp_onnx("prune", mixed_path, "--sparsity", 1.5, "-o", out),
        "--sparsity", "from 0 to 1", "1.5",
    )  # fmt: skip
    with pytest.raises(OptionError, match=r"--scope.*global or layer.*'all'"):
        prune_model(mixed_path, out, 0.5, "all")
    with pytest.raises(OptionError, match=r"mixed.onnx.*another file"):
        prune_model(mixed_path, mixed_path, 0.5)
    helper = onnx.helper
    x, y = (helper.make_tensor_value_info(name, 1, ["b", 3, 4, 4]) for name in "xy")
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", [x], [y])
    onnx.save(helper.make_model(graph), tmp_path / "bare.onnx")
    with pytest.raises(ModelError, match="no weights to prune"):
        prune_model(tmp_path / "bare.onnx", out, 0.5)
