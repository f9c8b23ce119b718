"""The parity check: what it says of right and of wrong conversions."""

import json
from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from nrp_converters.converted_model import ConvertedModel
from nrp_converters.parity import parity_images, preprocessed, relative_error, with_parity
from nrp_converters.torch.modules import convert
from nrp_onnx.backbone.preprocessing import PRESETS
from nrp_onnx.errors import ModelError

#: Together they take over ten seconds of a core.
pytestmark = pytest.mark.slow


def small_network(gain: float = 1.0) -> nn.Module:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 6, 3), nn.ReLU()).eval()
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            parameter.mul_(gain if name.endswith("weight") else 0)
    return network


def converted(gain: float = 1.0) -> ConvertedModel:
    return convert(
        small_network(gain), torch.zeros(1, 3, 20, 20), preprocessing=PRESETS["imagenet"]
    )


def with_changed_weights(model: ConvertedModel, factor: float) -> ConvertedModel:
    """The second convolution's weights times a factor: its output, and what follows, is wrong."""
    proto = onnx.ModelProto()
    proto.CopyFrom(model.onnx)
    (weight,) = (t for t in proto.graph.initializer if list(t.dims) == [6, 4, 3, 3])
    array = onnx.numpy_helper.to_array(weight) * np.float32(factor)
    weight.CopyFrom(onnx.numpy_helper.from_array(array, weight.name))
    return replace(model, onnx=proto)


def test_a_right_conversion_passes_and_says_so_in_the_metadata() -> None:
    model = converted()
    parity = with_parity(model)
    assert set(parity.layers) == {"0", "1", "2", "3"}
    assert 0 <= parity.max_relative_error < 1e-5
    metadata = {entry.key: entry.value for entry in model.onnx.metadata_props}
    stored = json.loads(metadata["nrp_onnx.parity"])
    assert stored["layers"] == parity.layers
    assert stored["max_relative_error"] == parity.max_relative_error
    assert "nrp_onnx.layers" in metadata


@pytest.mark.parametrize("gain", [1.0, 1e-9])
def test_a_wrong_layer_is_named_however_small_its_activations_are(gain: float) -> None:
    wrong = with_changed_weights(converted(gain), 1.01)
    with pytest.raises(
        ModelError, match=r"layer [23] does not compute.*at most 0\.001.*0\.01"
    ) as e:
        with_parity(wrong)
    assert "--allow-mismatch" in str(e.value)
    allowed = with_parity(wrong, allow_mismatch=True)
    assert allowed.layers["2"] == pytest.approx(0.01, rel=1e-3)
    assert allowed.layers["1"] < 1e-5


def test_activations_that_became_zero_do_not_pass() -> None:
    with pytest.raises(ModelError, match="found 1"):
        with_parity(with_changed_weights(converted(), 0.0))


def test_relative_error_is_at_the_scale_of_the_layer() -> None:
    source = np.array([1e-20, -4e-20])
    assert relative_error(source * 1.25, source) == pytest.approx(0.25)
    assert relative_error(np.zeros(2), np.zeros(2)) == 0
    assert relative_error(np.array([0, 1e-30]), np.zeros(2)) == np.inf
    assert relative_error(np.array([np.nan, 0]), source) == np.inf
    assert relative_error(source, np.array([np.inf, 0])) == np.inf
    assert relative_error(source[:1], source) == np.inf


def test_images_are_noise_and_objects_through_the_preprocessing() -> None:
    spec = PRESETS["caffe"].for_input(40, 30, "NHWC", "float32")
    images = parity_images(spec)
    assert images.shape == (4, 40, 30, 3)
    assert images.dtype == np.uint8
    roughness = np.abs(np.diff(images.astype(float), axis=2)).mean(axis=(1, 2, 3))
    assert roughness[:2].min() > 3 * roughness[2:].max()
    expected = images[..., ::-1] - np.array([103.939, 116.779, 123.68])
    np.testing.assert_allclose(preprocessed(images, spec), expected, atol=1e-3)
