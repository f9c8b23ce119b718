"""keras:NAME and keras:FILE.keras on the command line and in Python."""

import json
import os
import random
import subprocess
import sys

import numpy as np
import onnxruntime as ort
import pytest

from nrp_converters.request import Request
from nrp_converters.specs import convert_spec
from nrp_converters.tensorflow.keras_specs import build_application, preprocessing_of
from nrp_converters.tensorflow.packages import keras
from nrp_onnx.backbone.model import load_backbone
from nrp_onnx.backbone.preprocessing import PRESETS
from nrp_onnx.errors import NrpOnnxError
from tests.command_line import assert_user_error, nrp_onnx, nrp_onnx_process
from tests.converters import keras_models

pytestmark = pytest.mark.tensorflow

#: The networks of the paper and their parameters, as Keras documents them.
PAPER = {
    "MobileNet": 4_253_864,
    "MobileNetV2": 3_538_984,
    "NASNetMobile": 5_326_716,
    "ResNet50": 25_636_712,
    "Xception": 22_910_480,
    "DenseNet121": 8_062_504,
    "DenseNet169": 14_307_880,
}


def test_an_application_converts_from_the_command_line(tmp_path):
    path = tmp_path / "mobilenet.onnx"
    run = nrp_onnx_process("convert", "keras:MobileNet", "--weights", "none", "--input-size", "32x48",
                   "--seed", 7, "-o", path)  # fmt: skip
    assert run.returncode == 0, run.stderr
    assert run.stderr == ""  # neither TensorFlow nor tf2onnx chatters
    assert "parity with the source: 90 layers" in run.stdout
    backbone = load_backbone(path)
    assert backbone.n_parameters == PAPER["MobileNet"]
    assert (backbone.input.height, backbone.input.width) == (32, 48)
    assert backbone.source is not None
    assert backbone.source["spec"] == "keras:MobileNet"
    assert (backbone.source["weights"], backbone.source["seed"]) == ("none", 7)
    assert backbone.preprocessing is not None
    assert backbone.preprocessing.image_mean == (0.5, 0.5, 0.5)

    keras.utils.set_random_seed(7)
    model = keras.applications.MobileNet(weights=None, input_shape=(32, 48, 3))
    assert [layer.name for layer in backbone.layers] == [layer.name for layer in model.layers[1:]]
    images = np.random.default_rng(0).uniform(-1, 1, (2, 32, 48, 3)).astype(np.float32)
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    middle = keras.Model(model.input, model.get_layer("conv_pw_5_bn").output)
    (found,) = session.run(["conv_pw_5_bn"], {"input": images})
    expected = middle.predict(images, verbose=0)
    assert np.abs(found - expected).max() < 1e-4 * np.abs(expected).max()


def test_names_do_not_depend_on_what_was_built_before():
    names = []
    for _ in range(2):
        request = Request(weights="none", input_size=(32, 32), preprocessing=PRESETS["tf"])
        names.append([layer.name for layer in convert_spec("keras:MobileNet", request).layers])
    assert names[0] == names[1]
    assert "global_average_pooling2d" in names[0]


def test_random_weights_leave_the_random_numbers_of_the_caller():
    def states():
        return random.getstate(), str(np.random.get_state(legacy=False)["state"])

    before = states()
    build_application("MobileNet", None, (32, 32), seed=3)
    assert states() == before


@pytest.mark.parametrize(("name", "n_parameters"), PAPER.items())
def test_networks_of_the_paper(name, n_parameters, tmp_path):
    path = tmp_path / "network.onnx"
    # At their own 224 pixels or more, each takes half a minute of a core; one of them does.
    size = None if name == "MobileNetV2" else 96
    asked = [] if size is None else ["--input-size", size]
    run = nrp_onnx("convert", f"keras:{name}", "--weights", "none", *asked, "-o", path)
    assert run.returncode == 0, run.stderr
    backbone = load_backbone(path)
    assert backbone.n_parameters == n_parameters
    assert backbone.input.height == (size or 224)
    keras.utils.clear_session()  # a model built before would move the numbers in the names on
    model = getattr(keras.applications, name)(weights=None)
    expected = {layer.name for layer in model.layers if layer.__class__.__name__ != "InputLayer"}
    assert {layer.name for layer in backbone.layers} == expected
    metadata = {entry.key: entry.value for entry in backbone.proto.metadata_props}
    assert json.loads(metadata["nrp_onnx.parity"])["max_relative_error"] <= 1e-3


@pytest.mark.parametrize(
    ("name", "preset"),
    [
        ("MobileNet", "tf"), ("MobileNetV2", "tf"), ("NASNetMobile", "tf"), ("Xception", "tf"),
        ("ResNet50", "caffe"), ("VGG16", "caffe"), ("ResNet50V2", "tf"), ("DenseNet121", "imagenet"),
        ("DenseNet169", "imagenet"), ("EfficientNetB0", "raw"), ("ConvNeXtTiny", "raw"),
        ("MobileNetV3Small", "raw"),
    ],
)  # fmt: skip
def test_preprocessing_is_the_applications_own(name, preset):
    assert preprocessing_of(name) == PRESETS[preset]


def test_a_keras_file_converts(tmp_path):
    keras_models.sequential().save(tmp_path / "plain.keras")
    run = nrp_onnx("convert", "keras:plain.keras", "--preprocess", "tf", "-o", "plain.onnx",
                   cwd=tmp_path)  # fmt: skip
    assert run.returncode == 0, run.stderr
    backbone = load_backbone(tmp_path / "plain.onnx")
    assert [layer.name for layer in backbone.layers][-1] == "answer"
    assert backbone.source is not None
    assert backbone.source["weights"] == "plain.keras"
    assert str(tmp_path).encode() not in (tmp_path / "plain.onnx").read_bytes()


def test_weights_from_a_file(tmp_path):
    keras.utils.set_random_seed(5)
    model = keras.applications.MobileNet(weights=None, input_shape=(32, 32, 3))
    model.save_weights(tmp_path / "own.weights.h5")
    run = nrp_onnx("convert", "keras:MobileNet", "--weights", tmp_path / "own.weights.h5",
                   "--input-size", 32, "-o", tmp_path / "own.onnx")  # fmt: skip
    assert run.returncode == 0, run.stderr
    source = load_backbone(tmp_path / "own.onnx").source
    assert source is not None
    assert source["weights"] == "own.weights.h5"
    images = np.random.default_rng(0).uniform(-1, 1, (1, 32, 32, 3)).astype(np.float32)
    session = ort.InferenceSession(tmp_path / "own.onnx", providers=["CPUExecutionProvider"])
    (found,) = session.run(["output"], {"input": images})
    assert np.allclose(found, model.predict(images, verbose=0), rtol=1e-3, atol=1e-7)


def test_code_in_a_keras_file_is_not_run(tmp_path):
    image = keras.Input((8, 8, 3))
    keras.Model(image, keras.layers.Lambda(lambda x: x + 1)(image)).save(tmp_path / "code.keras")
    run = nrp_onnx("convert", f"keras:{tmp_path / 'code.keras'}", "-o", tmp_path / "x.onnx")
    assert_user_error(run, "code.keras", "code of its own", "nrp_onnx.convert(model)")
    assert not (tmp_path / "x.onnx").exists()


@pytest.mark.parametrize(
    ("spec", "request_", "says"),
    [
        (
            "keras:MobileNett",
            Request(weights="none"),
            ["no such network", "Did you mean MobileNet"],
        ),
        ("keras:missing.keras", Request(), ["no such model file", "nothing"]),
        ("keras:model.h5", Request(), ["expected a file FILE.keras or FILE.h5"]),
        ("keras:MobileNet", Request(weights="missing.h5"), ["no such weights", "missing.h5"]),
        ("keras:broken.keras", Request(), ["cannot load the file"]),
        ("keras:plain.keras", Request(weights="none"), ["Leave --weights out"]),
        ("keras:plain.keras", Request(input_size=(24, 24)), ["expected 16 x 16; found 24 x 24"]),
        ("keras:open.keras", Request(), ["leaves its image size open", "--input-size"]),
        ("keras:MobileNet", Request(weights="none", input_size=(8, 8)), ["cannot build", "32x32"]),
    ],
)
def test_bad_specs_say_what_to_do(spec, request_, says, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    keras_models.sequential().save(tmp_path / "plain.keras")
    keras_models.any_size().save(tmp_path / "open.keras")
    (tmp_path / "broken.keras").write_bytes(b"no archive")
    with pytest.raises(NrpOnnxError) as caught:
        convert_spec(spec, request_)
    assert "\n" not in str(caught.value)
    for words in says:
        assert words in str(caught.value)


def test_weights_that_cannot_be_downloaded(tmp_path):
    run = subprocess.run(
        [sys.executable, "-m", "nrp_onnx", "convert", "keras:MobileNet", "-o", "x.onnx"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        # No weights from before, and a network that leads nowhere.
        env=os.environ
        | {"KERAS_HOME": str(tmp_path)}
        | dict.fromkeys(
            ["http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"], "http://127.0.0.1:9"
        )
        | {"no_proxy": "", "NO_PROXY": ""},
        check=False,
        timeout=300,
    )
    assert_user_error(run, "imagenet cannot be downloaded", "--weights none")


def test_a_missing_tensorflow_says_what_to_install():
    code = (
        "import sys; sys.modules['tensorflow'] = None\n"
        "from nrp_onnx.cli import main\n"
        "sys.argv = ['nrp-onnx', 'convert', 'keras:MobileNet', '-o', 'x.onnx']\n"
        "sys.exit(main())"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120
    )
    assert_user_error(run, "pip install 'nrp-onnx[keras]'")


@pytest.mark.parametrize("backend", ["torch", "tensorflow"])
def test_the_backend_that_is_set_is_respected_or_refused(backend, tmp_path):
    keras_models.sequential().save(tmp_path / "plain.keras")
    code = (
        "import os, sys; from nrp_onnx.cli import main\n"
        "sys.argv = ['nrp-onnx', 'convert', 'keras:plain.keras', '-o', 'x.onnx']\n"
        "try: main()\n"
        "finally: print(os.environ['KERAS_BACKEND'])"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120,
        cwd=tmp_path, env=os.environ | {"KERAS_BACKEND": backend},
    )  # fmt: skip
    assert run.stdout.splitlines()[-1] == backend
    if backend == "torch":
        assert_user_error(run, "KERAS_BACKEND: Keras runs on another backend", "found torch")
    else:
        assert run.returncode == 0, run.stderr
