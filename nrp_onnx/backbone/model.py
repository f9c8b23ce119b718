"""Reads an ONNX backbone: its input, its layers, its metadata; lifts old opsets."""

import json
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import onnx
import onnx_ir as ir
from onnx import inliner

from nrp_onnx.backbone.find_layers import derive_layers
from nrp_onnx.backbone.layers import PREPROCESSING_KEY, SOURCE_KEY, Layer, layers_from_metadata
from nrp_onnx.backbone.preprocessing import Preprocessing, preprocessing_from_json
from nrp_onnx.backbone.weight_files import check_external_data, read_small_tensors, sha256_of_model
from nrp_onnx.errors import ModelError
from nrp_onnx.files import check_model_file

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
        channels: 3, or 1 for luminance.
    """

    name: str
    layout: str
    height: int | None
    width: int | None
    dtype: str
    batch: int | None
    channels: int = 3

    def shape(self, batch: Any, height: Any, width: Any) -> tuple[Any, ...]:
        """Of images of some height and width, with the channels where the layout has them."""
        if self.layout == "NCHW":
            return batch, self.channels, height, width
        return batch, height, width, self.channels


@dataclass(frozen=True)
class Backbone:
    """An ONNX backbone as read from a file.

    Attributes:
        path: of the file.
        sha256: over it and its external data.
        proto: the model at opset 18 or later; large external data are referred to, not read, and
            lie in the folder of ``path``.
    """

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

    Large external data are not read, but where they lie and that they are whole is checked.

    Raises:
        ModelError: if the file is missing, damaged, or no model with one image input, or takes data
            from outside its folder.
    """
    path = Path(path)
    original = read_onnx(path)
    digest = sha256_of_model(original, path)
    metadata = {entry.key: entry.value for entry in original.metadata_props}
    proto = simplified(original, path.parent)
    layers = layers_from_metadata(metadata, path)
    if layers is None:
        # Before the opset is lifted: that renames tensors, and may drop module paths.
        layers = derive_layers(ir.from_proto(_with_shapes(proto)))
    proto = _with_shapes(lifted(proto, path))
    model = ir.from_proto(proto)
    image_input = find_image_input(model, path)
    made = {value.name for node in model.graph for value in node.outputs}
    if any(layer.tensor not in made for layer in layers):
        kept = [layer for layer in layers if layer.tensor in made]
        layers = [replace(layer, depth=depth) for depth, layer in enumerate(kept)]
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
        sha256=digest,
        proto=proto,
        input=image_input,
        layers=layers,
        preprocessing=preprocessing,
        source=source,
        n_parameters=(source or {}).get("n_parameters") or _count_parameters(model),
    )


def read_onnx(path: Path) -> onnx.ModelProto:
    """The content of an ONNX file, its external data checked but not read.

    Raises:
        ModelError: if it is missing or damaged, or takes data from outside its folder.
    """
    check_model_file(path)
    size = path.stat().st_size
    try:
        proto = onnx.load(path, load_external_data=False)
    except Exception as error:  # protobuf's DecodeError
        raise ModelError(
            "this file cannot be read as ONNX",
            where=path,
            expected="a whole ONNX model",
            found=f"{size} bytes ({error})",
            fix="Export or download it again.",
        ) from None
    if not proto.graph.node or not proto.opset_import:
        raise ModelError(
            "this file holds no graph",
            where=path,
            expected="a whole ONNX model",
            found=f"{size} bytes without nodes",
            fix="Export or download it again.",
        )
    check_external_data(proto, path)
    return proto


def simplified(original: onnx.ModelProto, folder: Path) -> onnx.ModelProto:
    """A copy without functions, initialisers among the inputs, or small external tensors."""
    proto = onnx.ModelProto()
    proto.CopyFrom(original)
    if proto.functions:
        proto = inliner.inline_local_functions(proto)
    read_small_tensors(proto, folder)
    without_listed_initializers(proto)
    return proto


def _with_shapes(proto: onnx.ModelProto) -> onnx.ModelProto:
    try:
        return onnx.shape_inference.infer_shapes(proto, data_prop=True)
    except (ValueError, onnx.shape_inference.InferenceError):
        return proto  # over 2 GB, or an operator that it does not know: shapes are then probed


def find_image_input(model: ir.Model, path: Path) -> ImageInput:
    """The input of a graph that takes images.

    Raises:
        ModelError: if there is none, or more than one input.
    """
    initializers = set(model.graph.initializers)
    inputs = [value for value in model.graph.inputs if value.name not in initializers]
    described = ", ".join(f"{v.name} {v.dtype}{v.shape or ''}" for v in inputs) or "none"
    expected = "one input of shape (batch, 3, H, W) or (batch, H, W, 3), or of 1 channel, float32 or float16"
    wrong = ModelError(
        "the model has no single image input", where=path, expected=expected, found=described
    )
    if len(inputs) != 1:
        raise wrong
    value = inputs[0]
    if value.shape is None or len(value.shape) != 4 or value.dtype not in _DTYPES:
        raise wrong
    dims = [dim if isinstance(dim, int) else None for dim in value.shape]
    channels = 3 if 3 in (dims[1], dims[3]) else 1
    if dims[1] == channels:
        layout, height, width = "NCHW", dims[2], dims[3]
    elif dims[3] == channels:
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
    dtype = _DTYPES[value.dtype]
    return ImageInput(value.name or "", layout, height, width, dtype, dims[0], channels)


def _count_parameters(model: ir.Model) -> int:
    """Numbers in floating-point weights; scalars such as clipping bounds do not count."""
    tensors = [value.const_value for value in model.graph.initializers.values()]
    for node in model.graph:
        if node.op_type == "Constant" and "value" in node.attributes:
            tensors.append(node.attributes["value"].as_tensor())
    return _filled(model) + sum(
        tensor.size
        for tensor in tensors
        if tensor is not None and tensor.dtype.is_floating_point() and len(tensor.shape) > 0
    )


def _filled(model: ir.Model) -> int:
    """Numbers in weights that the graph itself fills with one value, to keep its file small."""
    total = 0
    for node in model.graph:
        if node.op_type == "ConstantOfShape" and node.inputs[0] is not None:
            shape = ir.convenience.get_const_tensor(node.inputs[0])
            value = node.attributes.get("value")
            if shape is not None and (value is None or value.as_tensor().dtype in _DTYPES):
                total += math.prod(shape.numpy().tolist())
    return total


#: The first opset whose Resize has antialiasing, which the preprocessing nodes need.
MINIMUM_OPSET = 18
#: Opset 18 belongs to IR version 8.
_MINIMUM_IR = 8


def opset_of(proto: onnx.ModelProto) -> int:
    """The version of the standard operators; 0 where the model names none."""
    return next((o.version for o in proto.opset_import if o.domain in ("", "ai.onnx")), 0)


def without_listed_initializers(proto: onnx.ModelProto) -> None:
    """Take initialisers out of the graph's inputs, in place.

    Before IR version 4 they had to be there; they are weights, and no user feeds them.
    """
    weights = {tensor.name for tensor in proto.graph.initializer}
    inputs = [value for value in proto.graph.input if value.name not in weights]
    if len(inputs) < len(proto.graph.input):
        del proto.graph.input[:]
        proto.graph.input.extend(inputs)
    proto.ir_version = max(proto.ir_version, 4)


def lifted(proto: onnx.ModelProto, path: Path) -> onnx.ModelProto:
    """The model at `MINIMUM_OPSET` or later; the metadata of model and nodes are kept.

    Names of tensors stay, but for operators that become several: Softmax before opset 13 is one.

    Raises:
        ModelError: if its opset cannot be lifted.
    """
    opset = opset_of(proto)
    if opset >= MINIMUM_OPSET:
        return proto
    try:
        result = onnx.version_converter.convert_version(proto, MINIMUM_OPSET)
    except Exception as error:
        raise ModelError(
            f"its opset {opset} cannot be lifted to {MINIMUM_OPSET}",
            where=path,
            found=str(error).strip().partition("\n")[0] or type(error).__name__,
            fix=f"Export it again with opset {MINIMUM_OPSET} or later.",
        ) from None
    # The converter keeps the old number, under which initialisers would have to be inputs too.
    result.ir_version = max(proto.ir_version, _MINIMUM_IR)
    del result.metadata_props[:]
    result.metadata_props.extend(proto.metadata_props)
    before = {node.output[0]: node for node in proto.graph.node if node.output}
    for node in result.graph.node:
        same = before.get(node.output[0]) if node.output else None
        if same is not None:  # it drops the metadata of nodes
            del node.metadata_props[:]
            node.metadata_props.extend(same.metadata_props)
    return result
