"""Flax to ONNX: the layers, their names and numbers, the metadata."""

import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import onnx
import onnxruntime as ort
import pytest
from flax import nnx

import nrp_onnx
from nrp_converters.converted_model import ConvertedModel
from nrp_converters.flax.modules import convert
from nrp_onnx.backbone.model import load_backbone
from nrp_onnx.backbone.preprocessing import PRESETS
from tests.jax.models import (
    Awkward,
    Conv,
    Network,
    Pools,
    Tokens,
    ViewedNet,
    make_linen,
    make_network,
)

EXAMPLE = np.zeros((1, 16, 16, 3), np.float32)


@pytest.fixture(scope="module")
def network() -> tuple[Network, ConvertedModel]:
    model = make_network()
    source = {"weights": "drawn"}
    return model, convert(model, EXAMPLE, preprocessing=PRESETS["imagenet"], source=source)


@pytest.fixture(scope="module")
def linen_net() -> tuple[Any, ConvertedModel]:
    model = make_linen()
    return model, convert(model, EXAMPLE, preprocessing=PRESETS["raw"])


@pytest.fixture(scope="module")
def tokens() -> tuple[Tokens, ConvertedModel]:
    model = Tokens()
    return model, convert(model, EXAMPLE, preprocessing=PRESETS["raw"])


def some_images(batch: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(batch).standard_normal((batch, *shape)).astype(np.float32)


def run(model: ConvertedModel, images: np.ndarray) -> dict[str, np.ndarray]:
    """All outputs of the ONNX model, by their names."""
    session = ort.InferenceSession(
        model.onnx.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, {"input": images}), strict=True))


def steps_by_hand(network: Network, x: jax.Array) -> dict[str, jax.Array]:
    """All that the network computes, written out."""
    network = nnx.clone(network)
    network.eval()
    found: dict[str, jax.Array] = {}

    def block(name: str, call: str, x: jax.Array, place: int) -> jax.Array:
        part = network.blocks[place]
        found[f"{name}.conv{call}"] = part.conv(x)
        found[f"{name}.norm{call}"] = part.norm(found[f"{name}.conv{call}"])
        active = jnp.maximum(found[f"{name}.norm{call}"], 0)
        found[f"{name}.active{call}"] = found[f"{name}{call}"] = active
        return active

    found["stem"] = network.stem(x)
    x = nnx.max_pool(found["stem"], (3, 3), (1, 1), ((1, 1), (1, 1)))
    x = block("blocks.0", "#1", x, 0)
    x = x + block("blocks.0", "#2", x, 0)
    x = block("blocks.1", "", x, 1)
    x = nnx.avg_pool(x, (3, 3), (2, 2), "SAME", count_include_pad=False)
    x = nnx.max_pool(x, (2, 2))
    linear, norm, gelu = network.mlp.layers
    found["mlp.layers.0"] = linear(x.reshape(len(x), -1))
    found["mlp.layers.1"] = norm(found["mlp.layers.0"])
    found["mlp"] = found["drop"] = gelu(found["mlp.layers.1"])
    found["head"] = network.head(found["drop"])
    return found


def assert_same(got: np.ndarray, expected: Any, name: str) -> None:
    """Equal, relative to the layer's own scale."""
    expected = np.asarray(expected)
    assert got.shape == expected.shape, name
    error = np.abs(got - expected).max() / np.abs(expected).max()
    assert error <= 1e-4, f"{name}: relative error {error:.2g}"


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_every_layer_of_an_nnx_model_equals_flax(network, batch):
    model, converted = network
    images = some_images(batch, 16, 16, 3)
    got, expected = run(converted, images), steps_by_hand(model, jnp.asarray(images))
    assert [layer.name for layer in converted.layers] == list(expected)
    for layer in converted.layers:
        assert_same(got[layer.tensor], expected[layer.name], layer.name)
    assert_same(got["output"], expected["head"], "output")


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_every_layer_of_a_linen_model_equals_flax(linen_net, batch):
    bound, converted = linen_net
    module, variables = bound.unbind()
    images = some_images(batch, 16, 16, 3)
    got = run(converted, images)
    result, state = module.apply(
        variables, images, train=False, capture_intermediates=True, mutable=["intermediates"]
    )
    kept = state["intermediates"]
    block = kept["block"]
    expected = {"stem": kept["stem"]["__call__"][0]}
    for call in (0, 1):
        for part in ("Conv_0", "BatchNorm_0"):
            expected[f"block.{part}#{call + 1}"] = block[part]["__call__"][call]
        expected[f"block#{call + 1}"] = block["__call__"][call]
    expected["pooled"] = kept["pooled"][0]
    expected |= {name: kept[name]["__call__"][0] for name in ("drop", "head")}
    assert [layer.name for layer in converted.layers] == list(expected)
    for layer in converted.layers:
        assert_same(got[layer.tensor], expected[layer.name], layer.name)
    assert_same(got["output"], result, "output")


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_every_layer_of_a_token_model_equals_flax(tokens, batch):
    model, converted = tokens
    images = some_images(batch, 16, 16, 3)
    got = run(converted, images)
    model = nnx.clone(model)
    model.eval()
    attention = model.attention
    expected = {"patches": model.patches(images)}
    x = expected["patches"].reshape(batch, -1, 8)
    x = jnp.concatenate([jnp.tile(model.token.get_value(), (batch, 1, 1)), x], axis=1)
    y = expected["norm"] = model.norm(x)
    for name in ("query", "key", "value"):
        expected[f"attention.{name}"] = getattr(attention, name)(y)
    expected["attention.out"] = expected["attention"] = attention(y)
    assert [layer.name for layer in converted.layers] == list(expected)
    for layer in converted.layers:
        assert_same(got[layer.tensor], expected[layer.name], layer.name)
    assert_same(got["output"], (x + expected["attention"])[:, 0], "output")


def test_layer_tables(network, linen_net, tokens):
    table = {layer.name: layer for layer in network[1].layers}
    assert [layer.depth for layer in network[1].layers] == list(range(18))
    assert (table["stem"].op, table["stem"].shape, table["stem"].layout) == (
        "Conv", (8, 8, 8), "NHWC",
    )  # fmt: skip
    assert (table["blocks.1"].op, table["blocks.1"].shape) == ("Block", (8, 8, 12))
    assert table["blocks.0.active#2"].op == "sow"
    assert (table["head"].op, table["head"].shape, table["head"].layout) == ("Linear", (5,), "NC")
    table = {layer.name: layer for layer in linen_net[1].layers}
    assert (table["block.BatchNorm_0#1"].op, table["block.BatchNorm_0#1"].layout) == (
        "BatchNorm", "NHWC",
    )  # fmt: skip
    table = {layer.name: layer for layer in tokens[1].layers}
    assert (table["norm"].shape, table["norm"].layout) == ((17, 8), "NTC")


def test_batch_norms_and_convolutions_stay_as_they_are(network):
    ops = Counter(node.op_type for node in network[1].onnx.graph.node)
    assert (ops["Conv"], ops["BatchNormalization"]) == (4, 3)


def test_pooling_takes_all_of_flax_s_arguments():
    model = Pools()
    converted = convert(model, EXAMPLE[:, :15], preprocessing=PRESETS["raw"])
    images = some_images(3, 15, 16, 3)
    got = run(converted, images)
    expected = model(jnp.asarray(images))
    assert [layer.name for layer in converted.layers] == [
        *(f"max.{place}" for place in range(3)),
        *(f"min.{place}" for place in range(2)),
        *(f"avg.{place}" for place in range(5)),
    ]
    for layer, values in zip(converted.layers, expected, strict=True):
        assert_same(got[layer.tensor], values, layer.name)


def test_steps_between_layers_may_be_moved_but_not_lost():
    """A ReLU between convolutions is no layer; jax2onnx computes it in NCHW."""
    first, second = Conv(3, 8, (3, 3), rngs=nnx.Rngs(0)), Conv(8, 5, (3, 3), rngs=nnx.Rngs(0))
    norm = nnx.BatchNorm(8, use_running_average=True, rngs=nnx.Rngs(0))
    model = nnx.Sequential(first, norm, nnx.relu, second)
    converted = convert(model, EXAMPLE, preprocessing=PRESETS["raw"])
    onnx.checker.check_model(converted.onnx, full_check=True)
    images = some_images(2, 16, 16, 3)
    got = run(converted, images)
    assert_same(got["layers.0"], first(images), "layers.0")
    expected = second(jnp.maximum(norm(first(images)), 0))
    assert_same(got["layers.3"], expected, "layers.3")


def test_nchw_images_and_several_results():
    model = ViewedNet()
    converted = convert(model, np.zeros((1, 3, 12, 16), np.float32), preprocessing=PRESETS["raw"])
    assert (converted.preprocessing.layout, converted.preprocessing.size) == ("NCHW", (12, 16))
    images = some_images(2, 3, 12, 16)
    got, expected = run(converted, images), model(jnp.asarray(images), train=False)
    # The mean over all images is no answer for one of them, so it is left out.
    assert list(got) == ["output", "output#2", "conv"]
    assert_same(got["output"], expected["map"], "map")
    assert_same(got["output#2"], expected["mean"], "mean")


def test_layers_that_return_their_input_and_names_that_clash():
    model = Awkward()
    converted = convert(model, EXAMPLE, preprocessing=PRESETS["raw"])
    # `again` is the same module as `output` and has the first of the two names; what is called
    # inside jax.jit is no layer.
    assert [layer.name for layer in converted.layers] == ["input", "again#1", "again#2"]
    names = [output.name for output in converted.onnx.graph.output]
    assert names == ["output", *(layer.tensor for layer in converted.layers)]
    assert len({"input", *names}) == 5
    images = some_images(2, 16, 16, 3)
    got = run(converted, images)
    first = images @ np.asarray(model.output.kernel[...]) + np.asarray(model.output.bias[...]) + 1
    assert_same(got[converted.layers[0].tensor], images, "input")
    assert_same(got["again#1"], first, "again#1")
    model.input.deterministic = True
    assert_same(got["output"], model(jnp.asarray(images)), "output")


def test_half_precision_gives_a_half_precision_model():
    model = nnx.Sequential(
        nnx.Linear(3, 4, dtype=jnp.float16, param_dtype=jnp.float16, rngs=nnx.Rngs(0)), nnx.relu
    )
    converted = convert(model, EXAMPLE.astype(np.float16), preprocessing=PRESETS["raw"])
    images = some_images(2, 16, 16, 3).astype(np.float16)
    got = run(converted, images)
    assert {array.dtype for array in got.values()} == {np.dtype(np.float16)}
    expected = np.asarray(model(jnp.asarray(images)), np.float32)
    np.testing.assert_allclose(got["output"], expected, atol=1e-2)


def test_saved_model_is_valid_and_loads_as_a_backbone(network, linen_net, tmp_path):
    model, _ = network
    _, variables = linen_net[0].unbind()
    n_parameters = [
        sum(leaf.size for leaf in jax.tree.leaves(nnx.state(model, nnx.Param))),
        sum(leaf.size for leaf in jax.tree.leaves(variables["params"])),
    ]
    for (_, converted), expected in zip((network, linen_net), n_parameters, strict=True):
        path = tmp_path / "model.onnx"
        converted.save(path)
        onnx.checker.check_model(str(path), full_check=True)
        backbone = load_backbone(path)
        assert backbone.layers == converted.layers
        assert backbone.n_parameters == expected
        assert (backbone.input.layout, backbone.input.height, backbone.input.batch) == (
            "NHWC", 16, None,
        )  # fmt: skip
        content = path.read_bytes()
        for local in (__file__, Path(__file__).parent, sys.prefix, Path.cwd()):
            assert str(local).encode() not in content


def test_batch_axis_is_named_and_outputs_are_typed(network, linen_net, tokens):
    for _, converted in (network, linen_net, tokens):
        graph = converted.onnx.graph
        (image,) = graph.input
        assert image.name == "input"
        for value in (image, *graph.output):
            kind = value.type.tensor_type
            assert kind.elem_type == onnx.TensorProto.FLOAT
            assert kind.shape.dim[0].dim_param == "batch", value.name
        shapes = [
            tuple(dim.dim_value for dim in value.type.tensor_type.shape.dim[1:])
            for value in graph.output
        ]
        assert shapes[1:] == [layer.shape for layer in converted.layers]


def test_metadata(network):
    import flax

    model, converted = network
    metadata = {entry.key: entry.value for entry in converted.onnx.metadata_props}
    assert set(metadata) == {"nrp_onnx.layers", "nrp_onnx.preprocessing", "nrp_onnx.source"}
    assert json.loads(metadata["nrp_onnx.source"]) == {
        "framework": "flax",
        "version": flax.__version__,
        "api": "nnx",
        "jax_version": jax.__version__,
        "class": "tests.jax.models.Network",
        "n_parameters": sum(leaf.size for leaf in jax.tree.leaves(nnx.state(model, nnx.Param))),
        "weights": "drawn",
    }
    assert json.loads(metadata["nrp_onnx.preprocessing"])["layout"] == "NHWC"


def test_the_model_and_jax_are_left_as_they_were():
    model = make_network()
    model.train()
    model.blocks[1].norm.use_running_average = True  # as one who fine-tunes with a frozen part
    before = jax.tree.map(np.asarray, nnx.to_pure_dict(nnx.state(model, nnx.Not(nnx.RngState))))
    relu, call, pool = nnx.relu, nnx.Conv.__call__, nnx.max_pool
    convert(model, EXAMPLE, preprocessing=PRESETS["raw"])
    after = nnx.to_pure_dict(nnx.state(model, nnx.Not(nnx.RngState)))
    jax.tree.map(np.testing.assert_array_equal, after, before)
    assert not model.drop.deterministic
    assert not model.blocks[0].norm.use_running_average
    assert model.blocks[1].norm.use_running_average
    assert (nnx.relu, nnx.Conv.__call__, nnx.max_pool) == (relu, call, pool)
    # A function that jax compiles anew and one that it knew from the conversion: both run.
    assert jax.jit(lambda x: nnx.relu(x).sum())(jnp.ones((2, 10))) == 20
    assert model(jnp.asarray(some_images(2, 16, 16, 3))).shape == (2, 5)


def test_convert_by_object_proves_the_parity(capfd):
    model = nrp_onnx.convert(make_linen(), EXAMPLE, preprocessing="raw")
    metadata = {entry.key: entry.value for entry in model.onnx.metadata_props}
    parity = json.loads(metadata["nrp_onnx.parity"])
    assert list(parity["layers"]) == [layer.name for layer in model.layers]
    assert 0 < parity["max_relative_error"] < 1e-4
    printed = capfd.readouterr()
    assert (printed.out, printed.err) == ("", "")
