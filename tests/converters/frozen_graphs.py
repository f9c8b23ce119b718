"""A small graph of TensorFlow 1, as frozen files and TensorFlow.js have it."""

from typing import Any

import numpy as np

from nrp_converters.tensorflow.packages import tf


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
