"""Sets weights of an ONNX backbone to zero: those of least magnitude, or random ones as a control.

Weights are the kernels of convolutions and the matrices of dense layers; biases and the parameters of
normalisation stay. Nothing else of the file changes, so that a pruned backbone has the layers, the
preprocessing and the metadata of the one that it was made from.
"""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
from onnx import numpy_helper

from nrp_onnx.backbone.layers import SOURCE_KEY
from nrp_onnx.backbone.model import read_onnx, simplified
from nrp_onnx.backbone.weight_files import read_tensor, save_model, sha256_of_model
from nrp_onnx.errors import ModelError, OptionError

#: Operators with weights, and the places of their inputs that can hold them.
_WEIGHT_INPUTS = {"Conv": (1,), "Gemm": (0, 1), "MatMul": (0, 1)}
#: What may stand between an initialiser and the operator: it moves numbers, and keeps zeros zero.
_MOVING = frozenset(("Cast", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze"))


@dataclass(frozen=True)
class Pruning:
    """What was done to a model; it is kept in the model's metadata, as ``pruning`` of its source.

    Attributes:
        method: ``magnitude`` or ``random``.
        scope: ``global``: one ranking of all weights; ``layer``: one of each layer's.
        asked: the share of the weights that was to be zero.
        sparsity: the share that is, as counted in the weights themselves.
        n_weights, n_zero: the counts.
        seed: of random pruning, else None.
        pruned_sha256: of the model that it was made from.
    """

    method: str
    scope: str
    asked: float
    sparsity: float
    n_weights: int
    n_zero: int
    seed: int | None
    pruned_sha256: str


def prune_model(
    model: Path,
    out: Path,
    sparsity: float,
    scope: str = "global",
    random_seed: int | None = None,
) -> Pruning:
    """Write a copy of a model in which a share of the weights is zero.

    The weights of least magnitude go (Han et al. 2015; as ``l1_unstructured`` of
    `torch.nn.utils.prune`, and ``global_unstructured`` for the scope ``global``); weights that are zero
    already go first. With the same seed, the random weights that go at one sparsity also go at each
    higher one.

    Args:
        sparsity: from 0 to 1, the share of all weights, or of each layer's.
        scope: ``global`` or ``layer``.
        random_seed: drop random weights instead, drawn from this seed.

    Raises:
        OptionError: if there is no such scope, the sparsity is no share, or ``out`` is the model itself.
        ModelError: if the model cannot be read or has no floating-point weights.
    """
    if not 0 <= sparsity <= 1:
        raise OptionError(
            "this is no share of the weights",
            where="--sparsity",
            expected="a number from 0 to 1",
            found=sparsity,
        )
    if scope not in ("global", "layer"):
        raise OptionError(
            "no such scope", where="--scope", expected="global or layer", found=repr(scope)
        )
    if out.resolve() == model.resolve():
        raise OptionError(
            "this is the model that is to be pruned",
            where=out,
            fix="Write the pruned one to another file with -o.",
        )
    proto = read_onnx(model)
    digest = sha256_of_model(proto, model)
    tensors = _weights(proto, model)
    rng = None if random_seed is None else np.random.default_rng(random_seed)
    kept = [_rank(numpy_helper.to_array(tensor), rng) for tensor in tensors]
    if scope == "global":
        _drop_lowest(kept, sparsity)
    else:
        for ranks in kept:
            _drop_lowest([ranks], sparsity)
    n_zero = 0
    for tensor, ranks in zip(tensors, kept, strict=True):
        values = numpy_helper.to_array(tensor)
        pruned = np.where(ranks.reshape(values.shape) < 0, np.zeros((), values.dtype), values)
        n_zero += int((pruned == 0).sum())
        tensor.CopyFrom(numpy_helper.from_array(pruned, tensor.name))
    n_weights = sum(ranks.size for ranks in kept)
    done = Pruning(
        method="magnitude" if rng is None else "random",
        scope=scope,
        asked=sparsity,
        sparsity=n_zero / n_weights,
        n_weights=n_weights,
        n_zero=n_zero,
        seed=random_seed,
        pruned_sha256=digest,
    )
    _write_metadata(proto, done)
    save_model(proto, out, model.parent)
    return done


def measured_sparsity(model: Path) -> float:
    """The share of zeros among a model's weights.

    Raises:
        ModelError: see `prune_model`.
    """
    weights = [numpy_helper.to_array(t) for t in _weights(read_onnx(model), model)]
    return sum(int((w == 0).sum()) for w in weights) / sum(w.size for w in weights)


def _weights(proto: onnx.ModelProto, path: Path) -> list[onnx.TensorProto]:
    """The model's own tensors that hold weights, in the order of the graph, read into it."""
    names = _weight_names(ir.from_proto(simplified(proto, path.parent)))
    tensors = {tensor.name: tensor for tensor in proto.graph.initializer}
    for node in proto.graph.node:
        if node.op_type == "Constant" and node.attribute[0].HasField("t"):
            tensors[node.output[0]] = node.attribute[0].t
    if hidden := [name for name in names if name not in tensors]:
        raise ModelError(
            "weights are hidden in functions of the model",
            where=path,
            expected="weights in the graph itself",
            found=hidden[0],
            fix=f"Prune what this writes: nrp-onnx convert onnx:{path} -o OUT",
        )
    found = [tensors[name] for name in names]
    if not found:
        raise ModelError(
            "there are no weights to prune",
            where=path,
            expected=f"floating-point weights of {', '.join(_WEIGHT_INPUTS)}",
            found="none",
            fix="Prune the model before it is quantised.",
        )
    for tensor in found:
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            read_tensor(tensor, path.parent)
    return found


def _weight_names(model: ir.Model) -> list[str]:
    names: dict[str, None] = {}
    for node in model.graph:
        for place in _WEIGHT_INPUTS.get(node.op_type, ()) if node.domain == "" else ():
            value = node.inputs[place]
            while value is not None and (made := value.producer()) and made.op_type in _MOVING:
                value = made.inputs[0]
            if value is None or value.name is None:
                continue
            held = ir.convenience.get_const_tensor(value)
            if held is not None and held.dtype.is_floating_point() and len(held.shape) >= 2:
                names[value.name] = None
    return list(names)


def _rank(weights: np.ndarray, rng: np.random.Generator | None) -> np.ndarray:
    """What decides the order in which weights go, the lowest first: float array (n,), none negative."""
    magnitude = np.abs(weights.astype(np.float32, copy=False)).ravel()
    if rng is None:
        return magnitude
    drawn = 1 - rng.random(weights.size, np.float32)  # above zero
    return np.where(magnitude == 0, np.float32(0), drawn)


def _drop_lowest(ranks: Iterable[np.ndarray], share: float) -> None:
    """Set the lowest ``share`` of all ranks to -1, in place; of equal ones, the first."""
    arrays = list(ranks)
    n_dropped = round(share * sum(array.size for array in arrays))
    if n_dropped == 0:
        return
    together = np.concatenate(arrays)
    together.partition(n_dropped - 1)
    threshold = together[n_dropped - 1]
    ties = n_dropped - sum(int((array < threshold).sum()) for array in arrays)
    for array in arrays:
        equal = np.flatnonzero(array == threshold)[:ties]
        ties -= equal.size
        array[array < threshold] = -1
        array[equal] = -1


def _write_metadata(proto: onnx.ModelProto, done: Pruning) -> None:
    for entry in proto.metadata_props:
        if entry.key == SOURCE_KEY:
            entry.value = json.dumps(json.loads(entry.value) | {"pruning": asdict(done)})
            return
    proto.metadata_props.add(key=SOURCE_KEY, value=json.dumps({"pruning": asdict(done)}))
