"""Prepares an ONNX file from elsewhere: reads it, names its layers, opens its batch axis."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort

from nrp_converters.converted_model import ConvertedModel, strip_metadata, write_metadata
from nrp_converters.graph_edits import BATCH, open_reshapes, set_input_shape
from nrp_converters.parity import parity_images, preprocessed, relative_error, tolerance_for
from nrp_converters.request import Request
from nrp_onnx.backbone.find_layers import TORCH_SCOPES
from nrp_onnx.backbone.layers import Layer, guess_layout
from nrp_onnx.backbone.model import Backbone, load_backbone, opset_of, read_onnx, simplified
from nrp_onnx.backbone.preprocessing import Preprocessing
from nrp_onnx.backbone.preprocessing_nodes import check_fits
from nrp_onnx.backbone.weight_files import read_small_tensors, session_options
from nrp_onnx.errors import ModelError, OptionError


class OnnxSource:
    """A model with its own operators and opset, and inner tensors as further outputs.

    Args:
        proto: the file's content.
        tensors: names of what to return.
        path: of the file.
        batch: the fixed batch size, which is 1, or None where any will do.

    Raises:
        ModelError: if ONNX Runtime cannot load it; for an operator that nobody knows it names that.
    """

    def __init__(
        self, proto: onnx.ModelProto, tensors: Sequence[str], path: Path, batch: int | None
    ) -> None:
        exposed = onnx.ModelProto()
        exposed.CopyFrom(proto)
        read_small_tensors(exposed, path.parent)
        own = {output.name for output in exposed.graph.output}
        weights = {tensor.name for tensor in exposed.graph.initializer}
        (self._input,) = (value.name for value in exposed.graph.input if value.name not in weights)
        exposed.graph.output.extend(
            onnx.ValueInfoProto(name=name) for name in dict.fromkeys(tensors) if name not in own
        )
        self._tensors, self._path, self._batch = list(dict.fromkeys(tensors)), path, batch
        self._session = open_session(exposed, path)

    def run(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """Each tensor by its name, for a batch in the model's layout and dtype."""
        steps = len(images) if self._batch is None else self._batch
        parts = [
            run_session(
                self._session, self._tensors, self._input, images[i : i + steps], self._path
            )
            for i in range(0, len(images), steps)
        ]
        return {
            name: np.concatenate([part[place] for part in parts])
            for place, name in enumerate(self._tensors)
        }


def open_session(proto: onnx.ModelProto, path: Path) -> ort.InferenceSession:
    """A session on a model whose external data lie beside ``path``.

    Raises:
        ModelError: if ONNX Runtime cannot load it.
    """
    try:
        return ort.InferenceSession(
            proto.SerializeToString(),
            session_options(path.parent),
            providers=["CPUExecutionProvider"],
        )
    except Exception as error:  # ONNX Runtime has no public exception family
        raise ModelError(
            "ONNX Runtime cannot load the model",
            where=path,
            expected="operators that it knows",
            found=_told(error),
            fix="Export the model with standard ONNX operators.",
        ) from None


def run_session(
    session: ort.InferenceSession,
    tensors: Sequence[str],
    name: str,
    images: np.ndarray,
    path: Path,
) -> list[np.ndarray]:
    """What a session returns for images.

    Raises:
        ModelError: if it does not run.
    """
    try:
        outputs: list[np.ndarray] = session.run(list(tensors), {name: images})
    except Exception as error:
        raise ModelError(
            "the model does not run", where=path, expected="images", found=_told(error)
        ) from None
    return outputs


def _told(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]


_FLOATS = (np.float32, np.float16)
_IR_VERSIONS = (8, 10)


def from_spec(name: str, request: Request) -> ConvertedModel:
    """Expose the layers of an ONNX file, and open its batch axis where the graph allows it.

    Names of tensors stay as they are. The model's own outputs come first.

    Raises:
        ModelError: if the file cannot be read or run, has no single image input or no layers, or a
            layer is not finite.
        OptionError: if the image size is open and none is named, or the preprocessing does not fit.
    """
    path = Path(name)
    backbone = load_backbone(path)
    _refuse_weights(request, path)
    height, width, spec = _size_and_preprocessing(backbone, request)
    original = read_onnx(path)
    own = [output.name for output in original.graph.output]
    wanted = [*own, *(layer.tensor for layer in backbone.layers)]
    # A function's tensors can be seen only where its nodes stand in the graph itself.
    shown = simplified(original, path.parent) if original.functions else original
    source = OnnxSource(shown, wanted, path, backbone.input.batch)
    images = preprocessed(parity_images(spec), spec)[1:]
    alone = [source.run(images[place : place + 1]) for place in range(len(images))]
    layers = _activations(backbone.layers, alone, path)
    tensors = list(dict.fromkeys([*own, *(layer.tensor for layer in layers)]))

    model, why_one = _with_open_batch(
        backbone, height, width, tensors, alone, images, tolerance_for(spec)
    )
    if why_one:
        request.notes.say(f"the batch axis stays 1, since {why_one}")
    batch: int | str = 1 if why_one else BATCH
    _expose(model, tensors, alone[0], batch)
    kept = dict(model.metadata_props)
    strip_metadata(model, keep=frozenset({TORCH_SCOPES}))
    model.metadata_props.update(kept)
    origin = {
        "framework": "onnx",
        "version": onnx.__version__,
        "spec": f"onnx:{path.name}",
        "sha256": backbone.sha256,
        "producer": " ".join(filter(None, (original.producer_name, original.producer_version))),
        "opset": opset_of(original),
        "n_parameters": backbone.n_parameters,
    }
    if backbone.source is not None:
        origin["original"] = backbone.source
    write_metadata(model, layers, spec, origin)

    def run_source(batch_of_images: np.ndarray) -> dict[str, np.ndarray]:
        found = source.run(batch_of_images)
        return {layer.name: found[layer.tensor] for layer in layers}

    return ConvertedModel(_proto(model), layers, spec, run_source, data_folder=path.parent)


def _refuse_weights(request: Request, path: Path) -> None:
    if request.weights is not None:
        raise OptionError(
            "an ONNX file has its own weights",
            where=f"--weights, {path}",
            expected="no such option",
            found=repr(request.weights),
        )


def _size_and_preprocessing(backbone: Backbone, request: Request) -> tuple[int, int, Preprocessing]:
    """Height and width of the images, and the way to them from pixels."""
    given, path = backbone.input, backbone.path
    spec = request.preprocessing_or(backbone.preprocessing)
    said = request.input_size or spec.crop_size or spec.size
    height, width = said if isinstance(said, tuple) else (given.height, given.width)
    if request.input_size is None:
        height, width = given.height or height, given.width or width
    if height is None or width is None:
        raise OptionError(
            "the model leaves its image size open",
            where=path,
            expected="a size in pixels",
            found=" x ".join(str(size or "?") for size in (given.height, given.width)),
            fix="Set it with --input-size, for instance --input-size 224x224.",
        )
    if (given.height or height, given.width or width) != (height, width):
        raise OptionError(
            "the model's image size is fixed",
            where=f"--input-size, {path}",
            expected=f"{given.height or height}x{given.width or width}",
            found=f"{height}x{width}",
        )
    spec = spec.for_input(height, width, given.layout, given.dtype, given.channels)
    check_fits(spec, height, width, given.layout, given.dtype, path, given.channels)
    return height, width, spec


def _activations(
    layers: Sequence[Layer], alone: Sequence[dict[str, np.ndarray]], path: Path
) -> list[Layer]:
    """The layers that are activations of one image, with the shapes that a run shows."""
    found: list[Layer] = []
    for layer in layers:
        array = alone[0][layer.tensor]
        if array.dtype not in _FLOATS or not 2 <= array.ndim <= 4 or len(array) != 1:
            continue
        if not all(np.isfinite(run[layer.tensor]).all() for run in alone):
            raise ModelError(
                f"the layer {layer.name} is not finite",
                where=path,
                expected="numbers",
                found="NaN or infinity",
                fix="Check --preprocess: the images may be far brighter than the model takes them.",
            )
        shape = array.shape[1:]
        layout = layer.layout if layer.shape == shape else None
        found.append(
            replace(layer, shape=shape, layout=layout or guess_layout(shape), depth=len(found))
        )
    if not found:
        raise ModelError(
            "no layer was found", where=path, expected="floating-point activations of the image"
        )
    return found


def _with_open_batch(
    backbone: Backbone,
    height: int,
    width: int,
    tensors: Sequence[str],
    alone: Sequence[dict[str, np.ndarray]],
    images: np.ndarray,
    tolerance: float,
) -> tuple[ir.Model, str]:
    """The model with an open batch axis, where each image comes out as it does alone.

    Returns:
        The model, and why its batch axis is 1 if it is.
    """
    given = backbone.input
    why = ""
    for rewrite in (False, True):
        model = _copy(backbone)
        if rewrite and open_reshapes(model) == 0:
            break
        set_input_shape(model, given, height, width, BATCH)
        why = _why_not(model, given.name, tensors, alone, images, backbone.path, tolerance)
        if not why:
            return model, ""
    model = _copy(backbone)
    set_input_shape(model, given, height, width, 1)
    return model, why


def _why_not(
    model: ir.Model,
    input_name: str,
    tensors: Sequence[str],
    alone: Sequence[dict[str, np.ndarray]],
    images: np.ndarray,
    path: Path,
    tolerance: float,
) -> str:
    """Why a model cannot take several images at once; empty if it can."""
    proto = _proto(model)
    known = {output.name for output in proto.graph.output}
    proto.graph.output.extend(onnx.ValueInfoProto(name=n) for n in tensors if n not in known)
    try:
        together = run_session(open_session(proto, path), tensors, input_name, images, path)
    except ModelError:
        return f"the graph does not run on {len(images)} images"
    for name, array in zip(tensors, together, strict=True):
        apart = np.concatenate([run[name] for run in alone])
        if not relative_error(array, apart) <= tolerance:
            return f"{name} is another for {len(images)} images than for each"
    return ""


def _expose(
    model: ir.Model, tensors: Sequence[str], one: dict[str, np.ndarray], batch: int | str
) -> None:
    """Make these tensors the graph's outputs, in place, with the types that a run shows."""
    values = {value.name: value for node in model.graph for value in node.outputs}
    outputs = [values[name] for name in tensors]
    for value in outputs:
        array = one[str(value.name)]
        value.type = ir.TensorType(ir.DataType.from_numpy(array.dtype))
        value.shape = ir.Shape([batch, *array.shape[1:]])
    model.graph.outputs[:] = outputs


def _copy(backbone: Backbone) -> ir.Model:
    proto = onnx.ModelProto()
    proto.CopyFrom(backbone.proto)
    return ir.from_proto(proto)


def _proto(model: ir.Model) -> onnx.ModelProto:
    low, high = _IR_VERSIONS
    model.ir_version = min(max(model.ir_version, low), high)
    return ir.to_proto(model)
