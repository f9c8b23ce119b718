"""Layers that are computed alike in two files are extracted once; what differs is seen."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from nrp_onnx.activations.extract import extract_activations
from nrp_onnx.backbone.feature_graph import Feature
from nrp_onnx.backbone.fingerprints import computation_digests
from nrp_onnx.backbone.model import Backbone, load_backbone
from nrp_onnx.backbone.preprocessing import PRESETS
from nrp_onnx.backbone.reductions import Reduction
from nrp_onnx.notes import Notes
from nrp_onnx.recordings import load_recordings


def _digests(path: Path) -> dict[str, str]:
    """By the names of the layers: tensors may be called otherwise in another file."""
    backbone = load_backbone(path)
    found = computation_digests(backbone, [layer.tensor for layer in backbone.layers])
    return {layer.name: found[layer.tensor] for layer in backbone.layers}


def _changed(path: Path, out: Path, change: Callable[[onnx.ModelProto], None]) -> Path:
    proto = onnx.load(path)
    change(proto)
    onnx.save(proto, out)
    return out


def _scale(operator: str, place: int) -> Callable[[onnx.ModelProto], None]:
    """Double the weights of the n-th node of its kind."""

    def change(proto: onnx.ModelProto) -> None:
        node = [node for node in proto.graph.node if node.op_type == operator][place]
        (weights,) = [t for t in proto.graph.initializer if t.name == node.input[1]]
        weights.CopyFrom(numpy_helper.from_array(2 * numpy_helper.to_array(weights), weights.name))

    return change


def _stride(proto: onnx.ModelProto) -> None:
    second = [node for node in proto.graph.node if node.op_type == "Conv"][1]
    (pads,) = [attribute for attribute in second.attribute if attribute.name == "pads"]
    pads.ints[:] = [0, 0, 2, 2]


@pytest.mark.parametrize(
    ("change", "same"),
    [
        (lambda proto: proto.metadata_props.add(key="note", value="renamed"), 6),
        (_scale("Gemm", 0), 5),
        (_scale("Conv", 1), 2),
        (_stride, 2),
        (_scale("Conv", 0), 0),
    ],
)
def test_a_layer_changes_with_what_it_depends_on_and_nothing_else(
    model_path: Path, tmp_path: Path, change: Callable[[onnx.ModelProto], None], same: int
) -> None:
    """The network of conftest: conv, ReLU, conv, ReLU, flatten, dense."""
    before = _digests(model_path)
    after = _digests(_changed(model_path, tmp_path / "other.onnx", change))
    assert list(before) == list(after) == list("012345")
    assert [name for name in before if before[name] == after[name]] == list(before)[:same]


def test_names_of_tensors_and_nodes_do_not_count(model_path: Path, tmp_path: Path) -> None:
    def rename(proto: onnx.ModelProto) -> None:
        made = {name for node in proto.graph.node for name in node.input} - {"", "input"}
        made -= {output.name for output in proto.graph.output}
        for node in proto.graph.node:
            node.name = f"other/{node.name}"
            node.input[:] = [f"other/{name}" if name in made else name for name in node.input]
            node.output[:] = [f"other/{name}" if name in made else name for name in node.output]
        for tensor in proto.graph.initializer:
            tensor.name = f"other/{tensor.name}"
        del proto.graph.value_info[:]

    other = _changed(model_path, tmp_path / "renamed.onnx", rename)
    assert {t.name for t in onnx.load(other).graph.initializer} != {
        t.name for t in onnx.load(model_path).graph.initializer
    }
    assert _digests(other) == _digests(model_path)


def test_external_weights_are_read_for_the_digest(model_path: Path, tmp_path: Path) -> None:
    path = tmp_path / "external.onnx"
    onnx.save(
        onnx.load(model_path), path, save_as_external_data=True, location="w", size_threshold=0
    )
    before = _digests(path)
    assert before == _digests(model_path)
    data = np.fromfile(tmp_path / "w", np.uint8)
    data[-2048:] ^= 1
    data.tofile(tmp_path / "w")
    assert before != _digests(path)


def test_a_twin_of_another_last_layer_finds_the_activations(
    model_path: Path, recordings_folder: Path, tmp_path: Path
) -> None:
    recordings = load_recordings(recordings_folder)
    spec = PRESETS["tf"].for_input(32, 32, "NCHW", "float32")

    def extracted(backbone: Backbone) -> int:
        features = [Feature(layer, Reduction("none")) for layer in backbone.layers]
        return extract_activations(
            backbone, spec, features, recordings, tmp_path / "store", "cpu", Notes(), overwrite=True
        ).n_extracted

    twin = _changed(model_path, tmp_path / "twin.onnx", _scale("Gemm", 0))
    assert extracted(load_backbone(model_path)) == 6
    assert extracted(load_backbone(twin)) == 1
