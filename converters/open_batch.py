"""Opens the batch axis of a model that was made for one image, where it runs so."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
from onnx_ir.passes import common as passes

from nrp_onnx.backbone.layer_table import Layer
from nrp_onnx.converters.image_input import ImageInput
from nrp_onnx.errors import ModelError

_TOLERANCE = 1e-3

Export = Callable[[ImageInput], tuple[ir.Model, list[Layer]]]


def open_batch(export: Export, given: ImageInput) -> tuple[ir.Model, list[Layer]]:
    """Export for any batch size; for one image where that does not run, or computes otherwise.

    Args:
        export: makes the model for an input whose batch axis is open (None) or 1.
        given: the input.
    """
    try:
        model, layers = export(replace(given, batch=None))
        _open_reshapes(model)
        if given.batch is None or _same_alone_and_together(model, given):
            return model, layers
    except ModelError:
        if given.batch is None:
            raise
    return export(given)


def _open_reshapes(model: ir.Model) -> None:
    """Let reshapes to a batch of one keep whatever batch comes, in place."""
    for node in model.graph:
        if node.op_type != "Reshape" or node.inputs[1] is None:
            continue
        shape = node.inputs[1].const_value
        if shape is None or shape.size < 1:
            continue
        sizes = shape.numpy().copy()
        if sizes[0] == 1 and not np.any(sizes[1:] == 0):
            sizes[0] = 0  # as it comes
            value = ir.Value(name=f"{node.outputs[0].name}/shape", const_value=ir.tensor(sizes))
            value.const_value.name = value.name  # type: ignore[union-attr]
            model.graph.initializers.add(value)
            node.replace_input_with(1, value)
    passes.RemoveUnusedNodesPass()(model)


def _same_alone_and_together(model: ir.Model, given: ImageInput) -> bool:
    images = np.random.default_rng(0).uniform(-1, 1, (2, *given.shape[1:])).astype(given.dtype)
    try:
        options = ort.SessionOptions()
        options.log_severity_level = 4
        session = ort.InferenceSession(
            ir.to_proto(model).SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        (image,) = session.get_inputs()
        together = session.run(None, {image.name: images})
        alone = [session.run(None, {image.name: images[[place]]}) for place in range(2)]
    except Exception:  # ONNX Runtime has no public exception family; it does not run, then
        return False
    return all(
        both.shape == (2, *one.shape[1:]) == (2, *two.shape[1:])
        and np.allclose(both, np.concatenate([one, two]), atol=_TOLERANCE * np.abs(both).max())
        for both, one, two in zip(together, *alone, strict=True)
    )
