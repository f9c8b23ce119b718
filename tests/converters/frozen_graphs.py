"""A small graph of TensorFlow 1, as frozen files and TensorFlow.js have it."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf import json_format

from nrp_converters.tensorflow.packages import tf

Weights = dict[str, np.ndarray]


class Small:
    """Convolution, bias, ReLU6, depthwise convolution, pooling and softmax.

    Attributes:
        definition: the GraphDef; ``image`` in, ``answer`` out, height and width open.
        weights: its constants by their names.
    """

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        self.weights = {
            "kernel": rng.standard_normal((3, 3, 3, 4)).astype(np.float32),
            "bias": rng.standard_normal(4).astype(np.float32),
            "depthwise": rng.standard_normal((3, 3, 4, 1)).astype(np.float32),
            "depthwise_bias": rng.standard_normal(4).astype(np.float32),
            "dense": rng.standard_normal((4, 5)).astype(np.float32),
            "axes": np.array([1, 2], np.int32),
        }
        with tf.Graph().as_default() as graph:
            image = tf.compat.v1.placeholder(tf.float32, [None, None, None, 3], name="image")
            constant = {name: tf.constant(w, name=name) for name, w in self.weights.items()}
            self._build(image, constant)
        self.definition: Any = graph.as_graph_def()

    def _build(self, image: Any, weight: Any) -> dict[str, Any]:
        ops = tf.raw_ops
        conv = ops.Conv2D(input=image, filter=weight["kernel"], strides=[1, 2, 2, 1],
                          padding="SAME", name="conv")  # fmt: skip
        biased = ops.BiasAdd(value=conv, bias=weight["bias"], name="biased")
        active = ops.Relu6(features=biased, name="active")
        deep = ops.DepthwiseConv2dNative(input=active, filter=weight["depthwise"],
                                         strides=[1, 1, 1, 1], padding="SAME", name="deep")  # fmt: skip
        deeper = ops.BiasAdd(value=deep, bias=weight["depthwise_bias"], name="deeper")
        pooled = ops.Mean(input=deeper, axis=weight["axes"], name="pooled")
        scores = ops.MatMul(a=pooled, b=weight["dense"], name="scores")
        answer = ops.Softmax(logits=scores, name="answer")
        return {"biased": biased, "active": active, "deeper": deeper, "answer": answer}

    def run(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """Its layers in eager TensorFlow."""
        weights = {name: tf.constant(weight) for name, weight in self.weights.items()}
        found = self._build(tf.constant(images), weights)
        return {name: tensor.numpy() for name, tensor in found.items()}


def images_of(batch: int, height: int = 12, width: int = 10) -> np.ndarray:
    return np.random.default_rng(1).uniform(-1, 1, (batch, height, width, 3)).astype(np.float32)


def manifest(weights: Weights, folder: Path, n_shards: int = 1) -> list[dict[str, Any]]:
    """Write the weights into shards, and describe them."""
    data = b"".join(weight.tobytes() for weight in weights.values())
    step = -(-len(data) // n_shards)
    paths = [f"group1-shard{i + 1}of{n_shards}.bin" for i in range(n_shards)]
    for i, path in enumerate(paths):
        (folder / path).write_bytes(data[i * step : (i + 1) * step])
    return [{"paths": paths, "weights": described(weights)}]


def described(weights: Weights) -> list[dict[str, Any]]:
    return [
        {"name": name, "shape": list(weight.shape), "dtype": weight.dtype.name}
        for name, weight in weights.items()
    ]


def topology(small: Small, fused: bool = False) -> dict[str, Any]:
    """The graph as JSON, its constants without their values."""
    definition = tf.compat.v1.GraphDef()
    definition.CopyFrom(small.definition)
    for node in definition.node:
        if node.op == "Const":
            node.attr["value"].tensor.ClearField("tensor_content")
            node.attr["value"].tensor.ClearField("int_val")
    if fused:
        definition = fused_as_tfjs_does(definition)
    content: dict[str, Any] = json_format.MessageToDict(definition)
    return content


def fused_as_tfjs_does(definition: Any) -> Any:
    """Convolutions with their biases and activation, under the name of the last."""
    nodes = {node.name: node for node in definition.node}
    fuse(nodes["conv"], "_FusedConv2D", ["BiasAdd", "Relu6"], "bias")
    # TensorFlow.js's own name, which TensorFlow does not know.
    fuse(nodes["deep"], "FusedDepthwiseConv2dNative", ["BiasAdd"], "depthwise_bias")
    for name in ("biased", "active", "deeper"):
        del nodes[name]
    last = {"conv": "active", "deep": "deeper"}
    for node in nodes.values():
        node.name = last.get(node.name, node.name)
    return tf.compat.v1.GraphDef(node=nodes.values())


def fuse(node: Any, op: str, steps: list[str], bias: str) -> None:
    node.op = op
    node.input.append(bias)
    node.attr["fused_ops"].list.s.extend(step.encode() for step in steps)
    node.attr["num_args"].i = 1


def write_tfjs(small: Small, folder: Path) -> None:
    """The graph as a model of TensorFlow.js, in two shards."""
    folder.mkdir()
    content = {
        "format": "graph-model",
        "modelTopology": topology(small, fused=True),
        "weightsManifest": manifest(small.weights, folder, n_shards=2),
    }
    (folder / "model.json").write_text(json.dumps(content))
