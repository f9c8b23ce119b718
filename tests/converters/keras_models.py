"""Small Keras models with what makes conversion hard."""

from typing import Any

import numpy as np

from nrp_converters.tensorflow.packages import keras

L = keras.layers
SIZE = 16


def branched() -> Any:
    """A branch, a layer used twice, a nested model used twice, batch norms and dropout."""
    keras.utils.set_random_seed(1)
    patch = keras.Input((8, 8, 6))
    hidden = L.ReLU(name="inner_relu")(L.BatchNormalization(name="inner_bn")(patch))
    block = keras.Model(patch, L.Conv2D(6, 1, name="inner_conv")(hidden), name="block")
    shared = L.Activation("tanh", name="shared")

    image = keras.Input((SIZE, SIZE, 3), name="image")
    x = L.Conv2D(6, 3, strides=2, padding="same", use_bias=False, name="stem")(image)
    x = L.BatchNormalization(name="stem_bn")(x)
    left = shared(x)
    right = block(L.DepthwiseConv2D(3, padding="same", name="right")(x))
    x = L.Add(name="sum")([left, right])
    x = block(shared(x))
    x = L.Dropout(0.5, name="drop")(x)
    x = L.Concatenate(name="both")([x, left])
    tokens = L.Reshape((64, 12), name="tokens")(x)
    pooled = L.GlobalAveragePooling1D(name="pooled")(tokens)
    model = keras.Model(image, L.Dense(4, name="answer")(pooled), name="branched")
    randomise_batch_norms(model)
    return model


def sequential() -> Any:
    keras.utils.set_random_seed(2)
    model = keras.Sequential(
        [
            keras.Input((SIZE, SIZE, 3)),
            L.ZeroPadding2D(1, name="pad"),
            L.Conv2D(5, 3, strides=2, activation="relu", name="conv"),
            L.BatchNormalization(name="bn"),
            L.MaxPooling2D(name="pool"),
            L.Flatten(name="flat"),
            L.Dense(3, activation="softmax", name="answer"),
        ],
        name="plain",
    )
    randomise_batch_norms(model)
    return model


def any_size() -> Any:
    keras.utils.set_random_seed(3)
    image = keras.Input((None, None, 3))
    x = L.Conv2D(4, 3, activation="relu", name="conv")(image)
    return keras.Model(image, L.GlobalMaxPooling2D(name="pool")(x), name="any_size")


def two_inputs() -> Any:
    one, two = keras.Input((8, 8, 3)), keras.Input((8, 8, 3))
    return keras.Model([one, two], L.Add()([one, two]), name="two")


def no_image() -> Any:
    vector = keras.Input((8,))
    return keras.Model(vector, L.Dense(2)(vector), name="vector")


def bytes_only() -> Any:
    image = keras.Input((8, 8, 3), dtype="uint8")
    return keras.Model(image, L.Rescaling(1 / 255)(image), name="bytes")


def without_onnx() -> Any:
    """With an operator that ONNX lacks."""
    from nrp_converters.tensorflow.packages import tf

    class Bessel(L.Layer):  # type: ignore[misc,name-defined]
        def call(self, x: Any) -> Any:
            return tf.math.special.bessel_j0(x)

    image = keras.Input((8, 8, 3))
    return keras.Model(image, Bessel(name="bessel")(image), name="special")


def subclassed() -> Any:
    class Own(keras.Model):  # type: ignore[misc]
        def call(self, x: Any) -> Any:
            return x

    return Own()


def randomise_batch_norms(model: Any) -> None:
    """Statistics as after training, so that they show in what is computed."""
    rng = np.random.default_rng(0)
    for layer in model._flatten_layers():
        if isinstance(layer, L.BatchNormalization):
            shapes = [weight.shape for weight in layer.get_weights()]
            layer.set_weights([rng.uniform(0.5, 1.5, shape) for shape in shapes])
