"""SPEC ``tfjs:DIR`` or ``tfjs:model.json``: a model of TensorFlow.js, of graphs or of layers."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf import json_format

from nrp_converters.converted_model import ConvertedModel
from nrp_converters.request import Request
from nrp_converters.tensorflow.frozen_graph import convert_graph, fitted_preprocessing
from nrp_converters.tensorflow.fused_ops import take_apart
from nrp_converters.tensorflow.graph import told
from nrp_converters.tensorflow.graph_def import function_of
from nrp_converters.tensorflow.keras_files import example_of
from nrp_converters.tensorflow.keras_heads import own_preprocessing
from nrp_converters.tensorflow.keras_models import convert
from nrp_converters.tensorflow.packages import tf
from nrp_converters.tensorflow.tfjs_layers import layers_model
from nrp_converters.tensorflow.tfjs_weights import names_of, quantised_as, read_weights
from nrp_onnx.errors import ModelError, OptionError
from nrp_onnx.files import sha256_of_file

_FILE = "model.json"


def from_spec(name: str, request: Request) -> ConvertedModel:
    """Convert a model of TensorFlow.js; its weights are in files beside it, or in its JSON.

    Of a graph model the layers have the names of its nodes, of a layers model those of its layers.

    Raises:
        OptionError, ModelError: if there is no such model, its weights are missing or damaged, it
            takes anything but one batch of images, or it cannot be converted.
    """
    where = f"tfjs:{name}"
    if request.weights is not None:
        raise OptionError(
            "a model of TensorFlow.js has its own weights",
            where=where,
            found=f"--weights {request.weights}",
            fix="Leave --weights out.",
        )
    path = Path(name) / _FILE if Path(name).is_dir() else Path(name)
    content = _read(path, where)
    topology = content["modelTopology"]
    weights = read_weights(content, path.parent, where)
    source: dict[str, Any] = {
        "spec": f"tfjs:{path.parent.resolve().name}/{path.name}",
        "sha256": sha256_of_file(path),
        "n_parameters": sum(
            int(w.size) for w in weights.values() if w.dtype.kind == "f" and w.ndim
        ),
    }
    quantised = quantised_as(content)
    if quantised:
        source["quantised"] = quantised
        request.notes.say(
            f"the weights are quantised ({', '.join(quantised)}): they are taken as the real "
            "numbers that they stand for"
        )
    if "node" in topology:
        definition = _definition(topology, weights, where)
        take_apart(definition, where)
        graph, given = function_of(definition, request.input_size, _outputs(content), where)
        spec = fitted_preprocessing(graph, given, request, where)
        return convert_graph(graph, given, spec, source, where)
    model = layers_model(topology, weights, where)
    own = own_preprocessing(model, request.preprocessing, request.notes)
    spec = request.preprocessing_or(own)
    return convert(model, example_of(request), preprocessing=spec, source=source)


def _read(path: Path, where: str) -> dict[str, Any]:
    if not path.is_file():
        raise OptionError(
            "no model of TensorFlow.js is there",
            where=where,
            expected=f"a folder with {_FILE}, or such a file",
            found="a folder without" if path.parent.is_dir() else "nothing",
        )
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ModelError(
            "this is no JSON", where=where, expected=_FILE, found=str(error).partition("\n")[0]
        ) from None
    if not isinstance(content, dict) or not isinstance(content.get("modelTopology"), dict):
        raise ModelError(
            "this is no model of TensorFlow.js",
            where=where,
            expected="JSON with the key modelTopology",
            found=names_of(list(content)) if isinstance(content, dict) else type(content).__name__,
            fix="Of models before 1.0 (tensorflowjs_model.pb), convert the original.",
        )
    return content


def _outputs(content: Mapping[str, Any]) -> list[str]:
    """The tensors that the signature names as outputs, in its order; none if there is none."""
    metadata = content.get("userDefinedMetadata") or {}
    signature = content.get("signature") or metadata.get("signature") or {}
    outputs = signature.get("outputs") or {}
    return [str(value.get("name") or key) for key, value in outputs.items()]


def _definition(topology: Mapping[str, Any], weights: dict[str, np.ndarray], where: str) -> Any:
    """The graph as a GraphDef whose constants have their weights."""
    try:
        definition = json_format.ParseDict(
            dict(topology), tf.compat.v1.GraphDef(), ignore_unknown_fields=True
        )
    except json_format.ParseError as error:
        raise ModelError(
            "its graph cannot be read",
            where=where,
            expected="a GraphDef as JSON",
            found=told(error),
        ) from None
    missing = []
    for node in definition.node:
        if node.op != "Const":
            continue
        if node.name in weights:
            value = tf.make_tensor_proto(weights[node.name])
            node.attr["value"].tensor.CopyFrom(value)
            node.attr["dtype"].type = value.dtype
        elif not _has_values(node.attr["value"].tensor):
            missing.append(node.name)
    if missing:
        raise ModelError(
            "its manifest lacks weights of the graph",
            where=where,
            expected="a weight for every constant",
            found=f"none for {len(missing)}, such as {names_of(missing)}",
        )
    return definition


def _has_values(tensor: Any) -> bool:
    return bool(tensor.tensor_content) or any(
        field.name.endswith("_val") and value for field, value in tensor.ListFields()
    )
