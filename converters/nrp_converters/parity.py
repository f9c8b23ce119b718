"""Proves a conversion: the source and the ONNX model run on the same images, layer by layer."""

import json
import math
from dataclasses import asdict, dataclass

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
from onnx_ir.tape import Tape

from nrp_converters.converted_model import ConvertedModel
from nrp_onnx.backbone.layers import PARITY_KEY
from nrp_onnx.backbone.preprocessing import Preprocessing
from nrp_onnx.backbone.preprocessing_nodes import append_preprocessing
from nrp_onnx.backbone.weight_files import session_options
from nrp_onnx.errors import ModelError
from nrp_onnx.recordings.simulation.stimuli import render

TOLERANCE = 1e-3
#: Of a model in half precision: four steps of its 11 bits, since every operator rounds, and ONNX
#: Runtime leaves roundings out on the CPU where it has no kernel for half precision in that opset.
TOLERANCE_FLOAT16 = 4e-3
#: Images of each kind: noise, and rendered objects on textures.
N_IMAGES = 2
_SEED = 0


@dataclass(frozen=True)
class Parity:
    """How far an ONNX model is from its source.

    Attributes:
        layers: for each layer max |onnx - source| / max |source| over all images: each layer at
            its own scale, so that activations that vanish do not pass as equal.
        tolerance: what none of them may exceed.
        images: what the two were run on.
        reference: what the model was compared with.
    """

    layers: dict[str, float]
    tolerance: float
    images: str
    reference: str = "the source"

    @property
    def worst(self) -> str:
        """The layer that differs most."""
        return max(self.layers, key=lambda name: self.layers[name])

    @property
    def max_relative_error(self) -> float:
        return self.layers[self.worst]

    def to_json(self) -> str:
        """As it stands in the metadata of the model."""
        return json.dumps(
            {"max_relative_error": _json_number(self.max_relative_error), "worst_layer": self.worst}
            | asdict(self)
            | {"layers": {name: _json_number(error) for name, error in self.layers.items()}}
        )

    def summary(self) -> str:
        """One line for a person."""
        return (
            f"parity with {self.reference}: {len(self.layers)} layers, largest relative error "
            f"{self.max_relative_error:.1e} (layer {self.worst}), median "
            f"{float(np.median(list(self.layers.values()))):.1e}, on {self.images}"
        )


def with_parity(
    model: ConvertedModel, *, allow_mismatch: bool = False, tolerance: float | None = None
) -> Parity:
    """Compare a model with its source, and write the result into the model's metadata.

    Args:
        tolerance: None takes that of the model's dtype.

    Raises:
        ModelError: if a layer of an image depends on the images beside it; if a layer differs from
            its source by more than the tolerance, unless that is allowed.
    """
    if tolerance is None:
        tolerance = tolerance_for(model.preprocessing)
    images = parity_images(model.preprocessing)
    batch = preprocessed(images, model.preprocessing)
    source = model.run_source(batch)
    session = _session(model)
    found = _run(session, model, batch)
    _refuse_mixing(model, found, _run(session, model, batch[:1]), tolerance)
    errors = {
        layer.name: relative_error(found[layer.name], source[layer.name]) for layer in model.layers
    }
    images_used = f"{N_IMAGES} images of noise and {N_IMAGES} of objects"
    parity = Parity(errors, tolerance, images_used, model.reference)
    onnx.helper.set_model_props(
        model.onnx,
        {entry.key: entry.value for entry in model.onnx.metadata_props}
        | {PARITY_KEY: parity.to_json()},
    )
    # A comparison with NaN is false: what is not within the tolerance is a mismatch.
    if not parity.max_relative_error <= tolerance and not allow_mismatch:
        raise ModelError(
            f"the layer {parity.worst} does not compute what its source does",
            expected=f"a relative error of at most {tolerance:g}",
            found=f"{parity.max_relative_error:.2g}",
            fix="Convert with --allow-mismatch to look at it.",
        )
    return parity


def _refuse_mixing(
    model: ConvertedModel,
    together: dict[str, np.ndarray],
    alone: dict[str, np.ndarray],
    tolerance: float,
) -> None:
    """Refuse a model whose first image comes out otherwise alone than among the others."""
    for layer in model.layers:
        error = relative_error(together[layer.name][:1], alone[layer.name])
        if error > tolerance and np.isfinite(alone[layer.name]).all():
            raise ModelError(
                f"the layer {layer.name} of an image depends on the images beside it",
                expected=f"the same activations alone, to {tolerance:g}",
                found=f"a relative difference of {error:.2g}",
                fix="Find what takes the mean of a batch: a batch norm in training mode?",
            )


def tolerance_for(spec: Preprocessing) -> float:
    """The largest relative error that rounding explains, for a model of that dtype."""
    return TOLERANCE_FLOAT16 if spec.dtype == "float16" else TOLERANCE


def parity_images(spec: Preprocessing) -> np.ndarray:
    """Noise and rendered objects: uint8 RGB of the size that the backbone takes."""
    size = spec.crop_size or spec.size
    height, width = (size, size) if isinstance(size, int) else size or (224, 224)
    noise = np.random.default_rng(_SEED).integers(
        0, 256, (N_IMAGES, height, width, 3), dtype=np.uint8
    )
    objects = [
        np.asarray(render(_SEED, index).convert("RGB").resize((width, height)), np.uint8)
        for index in range(N_IMAGES)
    ]
    return np.concatenate([noise, np.stack(objects)])


def preprocessed(images: np.ndarray, spec: Preprocessing) -> np.ndarray:
    """Images as the backbone takes them, through the very nodes of the feature graph."""
    tape = Tape()
    given = ir.Value(
        name="images",
        shape=ir.Shape(["batch", "height", "width", 3]),
        type=ir.TensorType(ir.DataType.UINT8),
    )
    result = append_preprocessing(tape, given, spec)
    result.name = "input"
    result.type = ir.TensorType(
        ir.DataType.FLOAT16 if spec.dtype == "float16" else ir.DataType.FLOAT
    )
    result.shape = ir.Shape([None] * 4)
    graph = ir.Graph([given], [result], nodes=tape.nodes, opset_imports={"": 18}, name="images")
    proto = ir.to_proto(ir.Model(graph, ir_version=8))
    session = ort.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    batch: np.ndarray = session.run(None, {"images": images})[0]
    return batch


def relative_error(found: np.ndarray, source: np.ndarray) -> float:
    """max |found - source| / max |source|; infinite where shapes differ or something is no number."""
    if found.shape != source.shape or not np.isfinite(source).all():
        return math.inf
    difference = np.abs(found.astype(np.float64) - source.astype(np.float64)).max(initial=0)
    scale = np.abs(source.astype(np.float64)).max(initial=0)
    if not np.isfinite(difference):
        return math.inf
    if scale == 0:
        return 0.0 if difference == 0 else math.inf
    return float(difference / scale)


def _session(model: ConvertedModel) -> ort.InferenceSession:
    return ort.InferenceSession(
        model.onnx.SerializeToString(),
        session_options(model.data_folder),
        providers=["CPUExecutionProvider"],
    )


def _run(
    session: ort.InferenceSession, model: ConvertedModel, batch: np.ndarray
) -> dict[str, np.ndarray]:
    (given,) = session.get_inputs()
    # Where the batch axis is open, several images at once show that it really is.
    step = given.shape[0] if isinstance(given.shape[0], int) else len(batch)
    # A block and the last layer inside it may be one tensor.
    tensors = list(dict.fromkeys(layer.tensor for layer in model.layers))
    parts = [
        session.run(tensors, {given.name: batch[start : start + step]})
        for start in range(0, len(batch), step)
    ]
    found = {
        tensor: np.concatenate([part[place] for part in parts])
        for place, tensor in enumerate(tensors)
    }
    return {layer.name: found[layer.tensor] for layer in model.layers}


def _json_number(value: float) -> float | str:
    return value if math.isfinite(value) else str(value)
