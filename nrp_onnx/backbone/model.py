"""Reads an ONNX backbone: what it takes in, what layers it has, what it says of itself."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
import onnx_ir as ir

from nrp_onnx.backbone.layer_table import (
    PREPROCESSING_KEY,
    SOURCE_KEY,
    Layer,
    layers_from_metadata,
)
from nrp_onnx.backbone.layers import derive_layers
from nrp_onnx.backbone.preprocessing import Preprocessing, preprocessing_from_json
from nrp_onnx.errors import ModelError
from nrp_onnx.files import sha256_of_file

#: The first opset whose Resize has antialiasing, which the preprocessing nodes need.
MINIMUM_OPSET = 18

_DTYPES = {ir.DataType.FLOAT: "float32", ir.DataType.FLOAT16: "float16"}


@dataclass(frozen=True)
class ImageInput:
    """The input of a backbone.

    Attributes:
        name: of the tensor.
        layout: ``NCHW`` or ``NHWC``.
        height, width: pixels; None where the graph leaves them open.
        dtype: ``float32`` or ``float16``.
        batch: the fixed batch size, which is 1, or None where any will do.
    """

    name: str
    layout: str
    height: int | None
    width: int | None
    dtype: str
    batch: int | None


@dataclass(frozen=True)
class Backbone:
    """An ONNX backbone as read from a file; `proto` is at opset `MINIMUM_OPSET` or later."""

    path: Path
    sha256: str
    proto: onnx.ModelProto
    input: ImageInput
    layers: list[Layer]
    preprocessing: Preprocessing | None
    source: dict[str, Any] | None
    n_parameters: int


def load_backbone(path: Path) -> Backbone:
    """Read an ONNX file, lift its opset where needed, and find its input and its layers.

    Raises:
        ModelError: if the file is missing, damaged, or no model with one image input.
    """
    path = Path(path)
    if not path.is_file():
        raise ModelError(
            "no such model file",
            where=path,
            expected="an .onnx file",
            found="a folder" if path.is_dir() else "nothing",
        )
    try:
        proto = onnx.load(path)
    except Exception as error:  # protobuf's DecodeError, a missing external file, ...
        raise ModelError(
            "this file cannot be read as ONNX",
            where=path,
            expected="a whole ONNX model",
            found=f"{path.stat().st_size} bytes ({error})",
            fix="Export or download it again.",
        ) from None
    if not proto.graph.node or not proto.opset_import:
        raise ModelError(
            "this file holds no graph",
            where=path,
            expected="a whole ONNX model",
            found=f"{path.stat().st_size} bytes without nodes",
            fix="Export or download it again.",
        )
    metadata = {entry.key: entry.value for entry in proto.metadata_props}
    proto = _with_shapes(_lifted(proto, path))
    model = ir.from_proto(proto)
    image_input = _image_input(model, path)
    layers = layers_from_metadata(metadata, path)
    if layers is None:
        layers = derive_layers(model)
    if not layers:
        raise ModelError(
            "no layer was found", where=path, expected="floating-point activations of the image"
        )
    source = json.loads(metadata[SOURCE_KEY]) if SOURCE_KEY in metadata else None
    preprocessing = None
    if PREPROCESSING_KEY in metadata:
        where = f"{path}, metadata key {PREPROCESSING_KEY}"
        preprocessing = preprocessing_from_json(json.loads(metadata[PREPROCESSING_KEY]), where)
    return Backbone(
        path=path,
        sha256=sha256_of_file(path),
        proto=proto,
        input=image_input,
        layers=layers,
        preprocessing=preprocessing,
        source=source,
        n_parameters=(source or {}).get("n_parameters") or _count_parameters(model),
    )


def _lifted(proto: onnx.ModelProto, path: Path) -> onnx.ModelProto:
    opset = next((o.version for o in proto.opset_import if o.domain in ("", "ai.onnx")), 0)
    if opset >= MINIMUM_OPSET:
        return proto
    metadata = list(proto.metadata_props)
    try:
        lifted = onnx.version_converter.convert_version(proto, MINIMUM_OPSET)
    except Exception as error:
        raise ModelError(
            f"its opset {opset} cannot be lifted to {MINIMUM_OPSET}",
            where=path,
            found=error,
            fix=f"Export it again with opset {MINIMUM_OPSET} or later.",
        ) from None
    # Opset 18 belongs to IR version 8; the converter keeps the old number, under which initialisers
    # would have to be inputs too.
    lifted.ir_version = max(proto.ir_version, 8)
    del lifted.metadata_props[:]
    lifted.metadata_props.extend(metadata)
    return lifted


def _with_shapes(proto: onnx.ModelProto) -> onnx.ModelProto:
    try:
        return onnx.shape_inference.infer_shapes(proto, data_prop=True)
    except (ValueError, onnx.shape_inference.InferenceError):
        return proto  # over 2 GB, or an operator that it does not know: shapes are then probed


def _image_input(model: ir.Model, path: Path) -> ImageInput:
    initializers = set(model.graph.initializers)
    inputs = [value for value in model.graph.inputs if value.name not in initializers]
    described = ", ".join(f"{v.name} {v.dtype}{v.shape or ''}" for v in inputs) or "none"
    expected = "one input of shape (batch, 3, H, W) or (batch, H, W, 3), float32 or float16"
    wrong = ModelError(
        "the model has no single image input", where=path, expected=expected, found=described
    )
    if len(inputs) != 1:
        raise wrong
    value = inputs[0]
    if value.shape is None or len(value.shape) != 4 or value.dtype not in _DTYPES:
        raise wrong
    dims = [dim if isinstance(dim, int) else None for dim in value.shape]
    if dims[1] == 3:
        layout, height, width = "NCHW", dims[2], dims[3]
    elif dims[3] == 3:
        layout, height, width = "NHWC", dims[1], dims[2]
    else:
        raise wrong
    if dims[0] not in (None, 1):
        raise ModelError(
            "the batch size is fixed",
            where=path,
            expected="a dynamic batch axis, or 1",
            found=dims[0],
            fix="Export it with a dynamic batch axis.",
        )
    return ImageInput(value.name or "", layout, height, width, _DTYPES[value.dtype], dims[0])


def _count_parameters(model: ir.Model) -> int:
    """Numbers in floating-point weights; scalars such as clipping bounds do not count."""
    tensors = [value.const_value for value in model.graph.initializers.values()]
    for node in model.graph:
        if node.op_type == "Constant" and "value" in node.attributes:
            tensors.append(node.attributes["value"].as_tensor())
    return sum(
        tensor.size
        for tensor in tensors
        if tensor is not None and tensor.dtype.is_floating_point() and len(tensor.shape) > 0
    )
