"""Model files of Keras: .h5, a model inside a file, and what a model does to images itself."""

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import onnxruntime as ort
import pytest

import nrp_onnx as nrp
from nrp_converters.parity import preprocessed
from nrp_converters.tensorflow.keras_heads import head_of, own_preprocessing
from nrp_converters.tensorflow.packages import keras
from nrp_onnx.backbone.model import load_backbone
from nrp_onnx.backbone.preprocessing import PRESETS
from nrp_onnx.notes import Notes
from tests.command_line import assert_one_line_error, convert_command
from tests.converters import keras_models
from tests.converters.keras_models import SIZE

pytestmark = pytest.mark.tensorflow

L = keras.layers
MEAN, VARIANCE = (0.4, 0.5, 0.6), (0.04, 0.05, 0.06)


def network(head: Any, base: bool = False) -> Any:
    """A convolution behind a head, in a model of its own (``base``) or not."""
    keras.utils.set_random_seed(4)
    image = keras.Input((SIZE, SIZE, 3), name="image")
    conv = L.Conv2D(4, 3, name="conv")
    if base:
        conv = keras.Sequential([keras.Input((SIZE, SIZE, 3)), conv], name="base")
    return keras.Model(image, conv(head(image)), name="headed")


def rescaled(x: Any) -> Any:
    return L.Rescaling(1 / 127.5, offset=-1, name="rescale")(x)


def augmented(x: Any) -> Any:
    inside = keras.Sequential([L.RandomFlip(), L.Rescaling(1 / 255, name="to_one")], name="augment")
    return L.Normalization(mean=MEAN, variance=VARIANCE, name="normalise")(inside(x))


def resized(x: Any) -> Any:
    return rescaled(L.Resizing(SIZE, SIZE, name="resize")(x))


def of_0_to_1(x: Any) -> Any:
    return L.Normalization(mean=MEAN, variance=VARIANCE, name="normalise")(x)


def of_0_to_255(x: Any) -> Any:
    mean, variance = np.array(MEAN) * 255, np.array(VARIANCE) * 255**2
    return L.Normalization(mean=mean, variance=variance, name="normalise")(x)


HEADS = {
    "rescaled": (rescaled, ["Rescaling (rescale)"], 1.0),
    "resized": (resized, ["Rescaling (rescale)"], 1.0),
    "augmented": (augmented, ["Rescaling (to_one)", "Normalization (normalise)"], 1.0),
    "of_0_to_1": (of_0_to_1, ["Normalization (normalise)"], 1 / 255),
    "of_0_to_255": (of_0_to_255, ["Normalization (normalise)"], 1.0),
    "mobilenet": (keras.applications.mobilenet.preprocess_input, ["TrueDivide", "Subtract"], 1.0),
    "resnet50": (keras.applications.resnet50.preprocess_input, ["GetItem", "Stack", "Add"], 1.0),
}


@pytest.mark.parametrize("name", HEADS)
def test_what_a_model_begins_with_is_seen_and_said(name):
    head, words, factor = HEADS[name]
    notes = Notes()
    spec = own_preprocessing(network(head), None, notes)
    assert spec is not None
    assert (spec.rescale_factor, spec.image_mean, spec.image_std) == (factor, (0,) * 3, (1,) * 3)
    (said,) = notes.said
    assert f"values 0 to {255 * factor:g}" in said
    for word in words:
        assert word in said


@pytest.mark.parametrize("name", ["rescaled", "augmented", "of_0_to_1", "resnet50"])
def test_what_comes_before_a_part_becomes_its_preprocessing(name, tmp_path):
    head, words, _ = HEADS[name]
    whole = network(head, base=True)
    whole.save(tmp_path / "whole.keras")
    out = tmp_path / "part.onnx"
    run = convert_command(f"keras:{tmp_path / 'whole.keras'}#base", "-o", out)
    assert run.returncode == 0, run.stderr
    (note,) = run.stderr.splitlines()
    assert note.startswith("note: before the model base, headed does ")
    assert all(word in note for word in words)
    backbone = load_backbone(out)
    assert [layer.name for layer in backbone.layers] == ["conv"]
    assert (backbone.source or {})["part"] == "base"
    # The part behind its preprocessing computes what the whole computes on the image's own values.
    images = np.random.default_rng(0).integers(0, 256, (2, SIZE, SIZE, 3), dtype=np.uint8)
    assert backbone.preprocessing is not None
    session = ort.InferenceSession(out, providers=["CPUExecutionProvider"])
    (found,) = session.run(["output"], {"input": preprocessed(images, backbone.preprocessing)})
    values = images.astype(np.float32) / (255 if name == "of_0_to_1" else 1)
    expected = np.asarray(whole(values, training=False))
    assert np.abs(found - expected).max() <= 1e-4 * np.abs(expected).max()


def test_models_without_a_head_say_nothing():
    notes = Notes()
    for model in (keras_models.branched(), keras_models.sequential(), keras_models.subclassed()):
        assert head_of(model) is None
        assert own_preprocessing(model, PRESETS["tf"], notes) is PRESETS["tf"]
    assert notes.said == []


def test_preprocessing_twice_is_said(tmp_path):
    network(rescaled).save(tmp_path / "headed.keras")
    spec, out = f"keras:{tmp_path / 'headed.keras'}", tmp_path / "x.onnx"
    run = convert_command(spec, "-o", out, "--preprocess", "tf")
    assert run.returncode == 0, run.stderr
    assert "gives -1 to 1: images are preprocessed twice" in run.stderr
    preprocessing = load_backbone(out).preprocessing
    assert preprocessing is not None
    assert preprocessing.image_mean == (0.5, 0.5, 0.5)  # as asked
    run = convert_command(spec, "-o", out, "--preprocess", "raw")
    assert run.stderr == ""


@pytest.mark.parametrize("name", ["rescaled", "of_0_to_1", "resnet50"])
def test_the_head_of_an_exported_graph_is_seen(name, tmp_path):
    head, _, factor = HEADS[name]
    model = network(head)
    model.export(str(tmp_path / "headed"), verbose=False)
    out = tmp_path / "headed.onnx"
    run = convert_command(f"saved_model:{tmp_path / 'headed'}", "-o", out)
    assert run.returncode == 0, run.stderr
    (note,) = run.stderr.splitlines()
    assert f"made for values 0 to {255 * factor:g}" in note
    spec = load_backbone(out).preprocessing
    assert spec is not None
    assert (spec.rescale_factor, spec.image_mean) == (factor, (0, 0, 0))


def test_from_python_the_head_is_seen_too(tmp_path, caplog):
    nrp.convert(network(rescaled)).save(tmp_path / "headed.onnx")
    preprocessing = load_backbone(tmp_path / "headed.onnx").preprocessing
    assert preprocessing is not None
    assert (
        preprocessing.to_json() == PRESETS["raw"].for_input(SIZE, SIZE, "NHWC", "float32").to_json()
    )
    assert ["values 0 to 255" in record.message for record in caplog.records] == [True]


def test_an_h5_file_converts(tmp_path):
    model = keras_models.branched()
    model.save(tmp_path / "old.h5")
    out = tmp_path / "old.onnx"
    run = convert_command(f"keras:{tmp_path / 'old.h5'}", "--preprocess", "tf", "-o", out)
    assert run.returncode == 0, run.stderr
    assert run.stderr == ""
    images = np.random.default_rng(0).uniform(-1, 1, (2, SIZE, SIZE, 3)).astype(np.float32)
    session = ort.InferenceSession(out, providers=["CPUExecutionProvider"])
    (found,) = session.run(["output"], {"input": images})
    assert np.allclose(found, model.predict(images, verbose=0), atol=1e-5)
    assert (load_backbone(out).source or {})["weights"] == "old.h5"


def weights_only(path: Path) -> None:
    keras_models.sequential().save_weights(path)


def with_code(path: Path) -> None:
    keras.Sequential([keras.Input((8, 8, 3)), L.Lambda(lambda x: x + 1)]).save(path)


def with_a_link(path: Path) -> None:
    keras_models.sequential().save(path)
    path.rename(path.with_name("elsewhere.h5"))
    with h5py.File(path.with_name("elsewhere.h5")) as old, h5py.File(path, "w") as new:
        new.attrs.update(old.attrs)
        new["model_weights"] = h5py.ExternalLink("elsewhere.h5", "/model_weights")


@pytest.mark.parametrize(
    ("write", "name", "says"),
    [
        (weights_only, "m.weights.h5", ["weights and no model", "--weights m.weights.h5"]),
        (with_code, "m.h5", ["code of its own"]),
        (with_a_link, "m.h5", ["cannot load the file", "ExternalLink"]),
        (lambda path: path.write_bytes(b"no file"), "m.h5", ["cannot load the file"]),
        (lambda path: network(rescaled, base=True).save(path), "m.keras#stem", ["one of base"]),
        (lambda path: network(rescaled).save(path), "m.keras#base", ["Leave #base out"]),
    ],
)
def test_files_that_cannot_be_converted_say_why(write, name, says, tmp_path):
    write(tmp_path / name.partition("#")[0])
    run = convert_command(f"keras:{tmp_path / name}", "-o", tmp_path / "x.onnx")
    assert_one_line_error(run, name, *says)
    assert not (tmp_path / "x.onnx").exists()
