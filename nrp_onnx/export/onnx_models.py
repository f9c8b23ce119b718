"""The head as ONNX on activations, on images (predictor), and with the score (scorer)."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from onnx_ir.tape import Tape

from nrp_onnx.backbone import weight_files
from nrp_onnx.backbone.feature_graph import Feature, to_checked_proto
from nrp_onnx.backbone.weight_files import PROTOBUF_LIMIT, bytes_inside
from nrp_onnx.errors import OutputError
from nrp_onnx.export.folded_head import Dense, FoldedHead, SpatialLayer
from nrp_onnx.export.predict import RATES
from nrp_onnx.predictor.kernel_path import KernelPath

_DENSE = ("weight", "bias")


def head_model(
    head: FoldedHead, features: Sequence[Feature], facts: dict[str, Any]
) -> onnx.ModelProto:
    """Activations (batch, n_features), one input a layer under its name -> rates (batch, n_sites)."""
    inputs = [
        ir.Value(
            name=feature.layer.name,
            shape=ir.Shape(["batch", feature.n_features]),
            type=ir.TensorType(ir.DataType.FLOAT),
        )
        for feature in features
    ]
    graph = ir.Graph(inputs, [], nodes=[], opset_imports={"": 18}, name="nrp_onnx_head")
    _append_head(graph, inputs, head, "batch")
    return _finished(ir.Model(graph, ir_version=8, producer_name="nrp_onnx"), facts, "head")


def predictor_model(
    head: FoldedHead, feature_graph: ir.Model, facts: dict[str, Any]
) -> onnx.ModelProto:
    """Images, uint8 RGB (batch, H, W, 3) -> rates (batch, n_sites).

    Args:
        feature_graph: with the head's layers as outputs, in its order; it is used up.
    """
    graph = feature_graph.graph
    features = list(graph.outputs)
    batch = graph.inputs[0].shape[0]  # type: ignore[index]
    graph.outputs.clear()
    _append_head(graph, features, head, batch if isinstance(batch, int) else "batch")
    graph.name = "nrp_onnx_predictor"
    return _finished(feature_graph, facts, "predictor")


def save_model(proto: onnx.ModelProto, path: Path, data_folder: Path | None = None) -> None:
    """Write a model, whole or not at all: one file, and ``PATH.data`` if its backbone is over 2 GB.

    Args:
        data_folder: where external data lie that the model refers to.

    Raises:
        OutputError: if the head alone is too large for one file.
    """
    if (n_bytes := bytes_inside(proto)) > PROTOBUF_LIMIT:
        raise OutputError(
            "the model is too large for one ONNX file",
            where=path,
            expected=f"at most {PROTOBUF_LIMIT} bytes of numbers",
            found=f"{n_bytes} bytes",
            fix="Choose a smaller reduction with --reduce.",
        )
    weight_files.save_model(proto, path, data_folder)


def _append_head(
    graph: ir.Graph, inputs: Sequence[ir.Value], head: FoldedHead, batch: int | str
) -> None:
    tape = Tape()

    def constant(name: str, array: np.ndarray, dtype: type = np.float32) -> ir.Value:
        tensor = ir.tensor(array.astype(dtype), name=f"nrp/{name}")
        value = ir.Value(name=tensor.name, const_value=tensor)
        value.shape, value.type = ir.Shape(array.shape), ir.TensorType(tensor.dtype)
        graph.register_initializer(value)
        return value

    def dense(x: ir.Value, name: str, *weights: np.ndarray) -> ir.Value:
        values = [
            constant(f"{name}.{part}", array) for part, array in zip(_DENSE, weights, strict=False)
        ]
        return tape.op("Gemm", [x, *values], {"transB": 1}, name=f"nrp/{name}")

    local, linear, network = [], [], []
    of_kernel: dict[int, ir.Value] = {}
    for place, (x, layer) in enumerate(zip(inputs, head.layers, strict=True)):
        centred = tape.op("Sub", [x, constant(f"layer.{place}.mean", layer.mean)])
        if layer.linear is not None:
            linear.append(dense(centred, f"linear.{place}", layer.linear))
        if layer.spatial is not None:
            seen = _coordinates(tape, constant, centred, layer.spatial, place)
            network += _spatial_network(tape, constant, seen, layer.spatial, place)
            if layer.spatial.kernel_place is not None:
                of_kernel[layer.spatial.kernel_place] = seen
        if layer.l1 is not None:
            if layer.basis is not None:
                centred = dense(centred, f"basis.{place}", layer.basis)
            local.append(tape.op("Relu", [dense(centred, f"l1.{place}", *layer.l1)]))
    out_weight, out_bias = head.out
    if head.l2 is not None and out_weight is not None:
        if head.n_heads == 1:
            joined = tape.op("Concat", local, {"axis": 1})
            l2 = tape.op("Relu", [dense(joined, "l2", head.l2[0][0], head.l2[1][0])])
        else:
            l2 = _averaged_l2(tape, constant, local, head.l2, head.n_heads)
        rates = dense(l2, "out", out_weight, out_bias)
    else:
        rates = constant("out.bias", out_bias)
        for value in network:
            rates = tape.op("Add", [value, rates])
    if head.root:
        rates = tape.op("Relu", [rates])
        rates = tape.op("Mul", [rates, rates])
    rates = tape.op("Mul", [rates, constant("gain", head.gain)])
    at_zero = head.constant
    if head.kernel is not None and head.kernel_gain is not None:
        ordered = [of_kernel[place] for place in sorted(of_kernel)]
        linear.append(_kernel_rates(tape, constant, ordered, head.kernel, head.kernel_gain))
        at_zero = at_zero + head.kernel_gain * head.kernel.constant
    for value in linear:
        rates = tape.op("Add", [rates, value])
    rates = tape.op("Add", [rates, constant("constant", at_zero)])
    rates.name = RATES
    rates.shape = ir.Shape([batch, len(head.out[1])])
    rates.type = ir.TensorType(ir.DataType.FLOAT)
    for place, node in enumerate(tape.nodes):
        node.name = node.name or f"nrp/node_{place}"
        for output in node.outputs:
            output.name = output.name or f"nrp/value_{place}"
    graph.extend(list(tape.nodes))
    graph.outputs.append(rates)


def _coordinates(
    tape: Tape,
    constant: Callable[..., ir.Value],
    centred: ir.Value,
    layer: SpatialLayer,
    place: int,
) -> ir.Value:
    """Coordinates of a layer at each position, (batch, k, P), from its centred activations (batch, D)."""
    grid, name = layer.grid, f"spatial.{place}"

    def numbers(what: str, *values: int) -> ir.Value:
        return constant(f"{name}.{what}", np.array(values), np.int64)

    if grid.channels_first:
        shape = numbers("map", 0, grid.channels, grid.n_positions)
        channels = tape.op("Reshape", [centred, shape])
    else:
        shape = numbers("tokens", 0, grid.extra + grid.n_positions, grid.channels)
        tokens = tape.op("Reshape", [centred, shape])
        if grid.extra:
            end = np.iinfo(np.int64).max
            cut = [numbers(*part) for part in (("first", grid.extra), ("end", end), ("axis", 1))]
            tokens = tape.op("Slice", [tokens, *cut])
        channels = tape.op("Transpose", [tokens], {"perm": [0, 2, 1]})
    return tape.op("MatMul", [constant(f"{name}.directions", layer.directions), channels])


def _spatial_network(
    tape: Tape,
    constant: Callable[..., ir.Value],
    seen: ir.Value,
    layer: SpatialLayer,
    place: int,
) -> list[ir.Value]:
    """What a layer adds to the network, (batch, n_sites), or nothing; ``seen`` is (batch, k, P)."""
    if layer.l1 is None or layer.masks is None or layer.weights is None:
        return []
    name = f"spatial.{place}"
    n_heads, _, _, n_units = layer.weights.shape
    product = tape.op("MatMul", [constant(f"{name}.l1.weight", layer.l1[0]), seen])
    biases = constant(f"{name}.l1.bias", layer.l1[1][:, None])
    units = tape.op("Relu", [tape.op("Add", [product, biases])])
    apart = np.array([0, n_heads, 1, n_units, layer.grid.n_positions])
    units = tape.op("Reshape", [units, constant(f"{name}.heads", apart, np.int64)])
    masks = constant(f"{name}.masks", layer.masks.swapaxes(2, 3))
    # (batch, C, components, units, n_sites)
    under_masks = tape.op("MatMul", [units, masks])
    weights = constant(f"{name}.weights", layer.weights.swapaxes(2, 3))
    weighted = tape.op("Mul", [under_masks, weights])
    axes = constant(f"{name}.axes", np.array([1, 2, 3]), np.int64)
    return [tape.op("ReduceSum", [weighted, axes], {"keepdims": 0})]


def _kernel_rates(
    tape: Tape,
    constant: Callable[..., ir.Value],
    seen: Sequence[ir.Value],
    kernel: KernelPath,
    gain: np.ndarray,
) -> ir.Value:
    """Rates of the masked kernel ridge less its constant, (batch, n_sites); see `KernelPath`.

    Args:
        seen: coordinates of each layer, (batch, k, P).
        gain: of the rates, (n_sites,).
    """

    def number(name: str, array: np.ndarray | float) -> ir.Value:
        return constant(f"kernel.{name}", np.asarray(array))

    def integers(name: str, *values: int) -> ir.Value:
        return constant(f"kernel.{name}", np.array(values), np.int64)

    n_kernels, n_train = kernel.share.shape
    flat, spread = integers("flat", 0, -1), integers("spread", n_kernels, -1, n_train)
    last = integers("last", 2)
    products, own = [], []
    layers = zip(seen, kernel.coordinates, kernel.squares, strict=True)
    for place, (x, training, factors) in enumerate(layers):
        of_images = number(f"{place}.squares", factors)
        # Positions first: (P, batch, k) times (P, k, n) is (P, batch, n).
        at_positions = tape.op("Transpose", [x], {"perm": [2, 0, 1]})
        known = number(f"{place}.images", training.transpose(1, 2, 0))
        product = tape.op("Reshape", [tape.op("MatMul", [at_positions, known]), flat])
        products.append(tape.op("MatMul", [of_images, product]))
        squared = tape.op("Mul", [at_positions, at_positions])
        own.append(
            tape.op("MatMul", [of_images, tape.op("ReduceSum", [squared, last], {"keepdims": 0})])
        )
    while len(products) > 1:
        products[:2] = [tape.op("Add", products[:2])]
        own[:2] = [tape.op("Add", own[:2])]
    around = tape.op("Reshape", [products[0], spread])  # (Q, batch, n)
    toward = tape.op("MatMul", [around, number("share", kernel.share[:, :, None])])  # (Q, batch, 1)
    around = tape.op("Sub", [around, toward])
    offsets = (kernel.offsets - kernel.mean[:, None])[:, None]
    around = tape.op("Sub", [around, number("offsets", offsets)])
    own_lengths = tape.op("Unsqueeze", [own[0], last])
    twice = tape.op("Mul", [toward, number("two", 2.0)])
    mean = number("mean", kernel.mean[:, None, None])
    squared = tape.op("Add", [tape.op("Sub", [own_lengths, twice]), mean])
    lengths = tape.op("Sqrt", [tape.op("Relu", [squared])])
    smallest = number("smallest", float(np.finfo(np.float32).tiny))
    both = tape.op("Mul", [lengths, number("lengths", kernel.lengths[:, None])])
    cosine = tape.op("Div", [around, tape.op("Max", [both, smallest])])
    one, minus_one = number("one", 1.0), number("minus_one", -1.0)
    cosine = tape.op("Clip", [cosine, minus_one, one])
    angle = tape.op("Sub", [number("pi", np.pi), tape.op("Acos", [cosine])])
    sine = tape.op("Sqrt", [tape.op("Sub", [one, tape.op("Mul", [cosine, cosine])])])
    curved = tape.op("Add", [tape.op("Mul", [angle, cosine]), sine])
    curved = tape.op("Mul", [curved, both])
    of_sites = tape.op("Gather", [curved, integers("of_site", *kernel.kernel_of_site)], {"axis": 0})
    weights = kernel.weights * gain[:, None] / np.pi
    rates = tape.op("MatMul", [of_sites, number("weights", weights[:, :, None])])
    rates = tape.op("Squeeze", [rates, last])
    return tape.op("Transpose", [rates], {"perm": [1, 0]})


def _averaged_l2(
    tape: Tape,
    constant: Callable[..., ir.Value],
    local: Sequence[ir.Value],
    l2: Dense,
    n_heads: int,
) -> ir.Value:
    """NRP-L2 of several heads, (batch, C * units): one matrix product for each head, in a stack."""
    weights, biases = l2
    split = constant("heads", np.array([0, n_heads, -1]), np.int64)
    apart = [tape.op("Reshape", [value, split]) for value in local]
    joined = tape.op("Transpose", [tape.op("Concat", apart, {"axis": 2})], {"perm": [1, 0, 2]})
    product = tape.op("MatMul", [joined, constant("l2.weight", weights.transpose(0, 2, 1))])
    shifted = tape.op("Add", [product, constant("l2.bias", biases[:, None])])
    units = tape.op("Transpose", [tape.op("Relu", [shifted])], {"perm": [1, 0, 2]})
    return tape.op("Reshape", [units, constant("joined", np.array([0, -1]), np.int64)])


def _finished(model: ir.Model, facts: dict[str, Any], what: str) -> onnx.ModelProto:
    for key, value in facts.items():
        model.metadata_props[key] = value if isinstance(value, str) else json.dumps(value)
    return to_checked_proto(model, what)


RECORDED, NRP_ERROR, N_RECORDED = "recorded", "nrp_error", "n_recorded"
REGION_NAMES_KEY, SCORE_UNITS_KEY = "nrp_onnx.region_names", "nrp_onnx.score_units"


def scorer_model(
    predictor: onnx.ModelProto, regions: Sequence[str], scale: np.ndarray, units: str
) -> onnx.ModelProto:
    """Append the NRP-error to a predictor.

    The scorer takes the predictor's images and ``recorded``, float32 (batch, n_sites) in the
    recordings' units, NaN = missing. Beside ``rates`` it gives, for each region in the order of the
    metadata key ``nrp_onnx.region_names``, ``nrp_error``, the mean of |rate - recorded| / scale over
    all responses that are there (NaN where there is none), and ``n_recorded``, how many there are:
    the error of several batches is the mean of theirs weighted by it.

    Args:
        predictor: what `nrp_onnx.export.onnx_models.predictor_model` made.
        regions: of each site.
        scale: float array (n_sites,), from the recordings' units to those of the score.
        units: of the score.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(predictor)
    model = ir.from_proto(copy)
    graph = model.graph
    (rates,) = (value for value in graph.outputs if value.name == RATES)
    batch, n_sites = rates.shape  # type: ignore[misc]
    names = list(dict.fromkeys(regions))
    member = np.array([[region == name for name in names] for region in regions], np.float32)

    recorded = ir.Value(
        name=RECORDED, shape=ir.Shape([batch, n_sites]), type=ir.TensorType(ir.DataType.FLOAT)
    )
    tape = Tape()

    def constant(array: np.ndarray) -> ir.Value:
        return tape.op("Constant", [], {"value": ir.tensor(array)})

    zero = constant(np.zeros((), np.float32))
    missing = tape.op("IsNaN", [recorded])
    error = tape.op("Abs", [tape.op("Sub", [rates, recorded])])
    error = tape.op("Div", [error, constant(scale.astype(np.float32))])
    error = tape.op("Where", [missing, zero, error])
    there = tape.op("Cast", [tape.op("Not", [missing])], {"to": ir.DataType.FLOAT})
    axis = constant(np.array([0]))
    of_region = constant(member)
    sums, counts = (
        tape.op("MatMul", [tape.op("ReduceSum", [x, axis], {"keepdims": 0}), of_region])
        for x in (error, there)
    )
    found = {NRP_ERROR: tape.op("Div", [sums, counts]), N_RECORDED: counts}
    for place, node in enumerate(tape.nodes):
        node.name = f"nrp/score_{place}"
        for output in node.outputs:
            output.name = f"nrp/score_value_{place}"
    graph.inputs.append(recorded)
    graph.extend(list(tape.nodes))
    for name, value in found.items():
        value.name = name
        value.shape = ir.Shape([len(names)])
        value.type = ir.TensorType(ir.DataType.FLOAT)
        graph.outputs.append(value)
    graph.name = "nrp_onnx_scorer"
    model.metadata_props[REGION_NAMES_KEY] = json.dumps(names)
    model.metadata_props[SCORE_UNITS_KEY] = units
    return to_checked_proto(model, "scorer")
