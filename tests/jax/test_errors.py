"""Flax models that cannot be converted: what is said, and in one line."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx

from nrp_converters.flax.modules import convert
from nrp_onnx.backbone.preprocessing import PRESETS, Preprocessing
from nrp_onnx.errors import ModelError, NrpOnnxError, OptionError
from tests.jax.models import (
    BrightnessGate,
    Culprit,
    Half,
    LinenBlock,
    LinenNet,
    OddAndEven,
    PairsOnly,
    Spectrum,
    make_network,
)

EXAMPLE = np.zeros((1, 16, 16, 3), np.float32)


class Trained(linen.Module):
    """Is always in training mode."""

    @linen.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        return linen.BatchNorm(use_running_average=False)(x)


def always_training() -> linen.Module:
    return Trained().bind(Trained().init(jax.random.key(0), jnp.asarray(EXAMPLE)))


class Branching(nnx.Module):
    """Runs on shapes and in flax, but its branch needs a number of images."""

    def __init__(self) -> None:
        self.step = nnx.Dropout(0.5)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.step(x) if x.shape[0] > 1 else x


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Culprit(BrightnessGate()), ["submodule step: the model does not run", "Tracer"]),
        (lambda: Culprit(PairsOnly()), ["submodule step: the model does not run on 3 images"]),
        (lambda: Culprit(OddAndEven()), ["other steps for 3 images than for 2"]),
        (lambda: Culprit(Spectrum()), ["cannot be expressed in ONNX", "FFT", "Replace that"]),
        (lambda: Culprit(Branching()), ["submodule step: jax2onnx cannot trace", "batch"]),
        (lambda: Half(), ["the result is computed in", "bfloat16", "dtype=jnp.float32"]),
        (lambda: Spectrum(), ["no layer was found", "0 calls"]),
        (always_training, ["Trained", "immutable", "evaluation mode"]),
        (lambda: LinenNet(), ["a LinenNet without variables", "module.bind(variables)"]),
        (lambda: LinenBlock, ["no flax model that can run"]),
        (lambda: nnx.Module(), ["no flax model that can run"]),
    ],
)
def test_what_cannot_be_converted_is_said_in_one_line(make, says, capfd):
    model = make()
    with pytest.raises(ModelError) as caught:
        convert(model, EXAMPLE, preprocessing=PRESETS["raw"])
    message = str(caught.value)
    assert "\n" not in message
    for words in says:
        assert words in message
    printed = capfd.readouterr()
    assert (printed.out, printed.err) == ("", "")


@pytest.mark.parametrize(
    ("example", "options", "error", "says"),
    [
        (EXAMPLE[0], {}, ModelError, "found (16, 16, 3) float32"),
        (EXAMPLE.astype(np.float64), {}, ModelError, "float64"),
        (EXAMPLE[..., :1], {}, ModelError, "shape (batch, H, W, 3)"),
        (None, {}, ModelError, "no batch of images"),
        (EXAMPLE, {"source": {"file": jnp.zeros(1)}}, OptionError, "as JSON"),
        (
            EXAMPLE,
            {"preprocessing": Preprocessing(size=(32, 32))},
            OptionError,
            "expected 16 x 16; found 32 x 32",
        ),
    ],
)
def test_wrong_input_is_refused(example, options, error, says):
    with pytest.raises(NrpOnnxError) as caught:
        convert(make_network(), example, **{"preprocessing": PRESETS["raw"], **options})
    assert type(caught.value) is error
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
