"""Edits of an ONNX graph: open the batch axis, expose layers, whatever the framework.

Whether it does is no question for shape inference: constants in Reshape, Expand or Concat decide. So
the rewritten graph is run on several images at once, and each must come out as it does alone.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
from onnx_ir.passes import common as passes

from nrp_converters.converted_model import name_outputs, strip_metadata, values_of
from nrp_converters.image_input import SourceInput
from nrp_onnx.backbone.find_layers import image_dependent_nodes
from nrp_onnx.backbone.layers import Layer
from nrp_onnx.backbone.model import ImageInput
from nrp_onnx.errors import ModelError

BATCH = "batch"


def set_input_shape(
    model: ir.Model, given: ImageInput, height: int, width: int, batch: int | str
) -> None:
    """Give the image input this shape, in place, and forget what was inferred from the old one."""
    (value,) = (value for value in model.graph.inputs if value.name == given.name)
    value.shape = ir.Shape(given.shape(batch, height, width))
    for node in model.graph:
        for output in node.outputs:
            output.shape = None


def open_reshapes(model: ir.Model) -> int:
    """Let the constant targets of Reshape follow the batch axis, in place; how many there were.

    Before::

        Reshape(x of shape [1, 1024, 1, 1], [1, 1024])     Reshape(y of shape [12, 9, 8], [1, 12, 72])

    After::

        Reshape(x, [0, 1024])                              Reshape(y, [-1, 12, 72])

    Where both begin with the batch, 0 takes it over. Otherwise the first axis may hold the batch and
    more, and what the other axes leave is its length. At batch 1 both are what was there before.
    Needs the shapes at batch 1.
    """
    changed = 0
    for node in image_dependent_nodes(model):
        if node.op_type != "Reshape" or node.domain not in ("", "ai.onnx"):
            continue
        x, target = node.inputs
        constant = None if target is None else ir.convenience.get_const_tensor(target)
        if x is None or constant is None:
            continue
        sizes = [int(size) for size in constant.numpy()]
        if not sizes or sizes[0] < 1:
            continue
        begins_with_batch = x.shape is not None and len(x.shape) > 0 and x.shape[0] == 1
        zero_copies = (
            "allowzero" not in node.attributes or not node.attributes["allowzero"].as_int()
        )
        if sizes[0] == 1 and begins_with_batch and zero_copies:
            sizes[0] = 0
        elif -1 not in sizes:
            sizes[0] = -1
        else:
            continue
        changed += 1
        name = f"{node.outputs[0].name}/open_shape"
        tensor = ir.tensor(np.array(sizes, np.int64), name=name)
        value = ir.Value(
            name=name, shape=ir.Shape([len(sizes)]), type=ir.TensorType(ir.DataType.INT64)
        )
        value.const_value = tensor
        model.graph.register_initializer(value)
        node.replace_input_with(1, value)
    return changed


_TOLERANCE = 1e-3

Export = Callable[[SourceInput], tuple[ir.Model, list[Layer]]]


def open_batch(export: Export, given: SourceInput) -> tuple[ir.Model, list[Layer]]:
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


def _same_alone_and_together(model: ir.Model, given: SourceInput) -> bool:
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


INPUT, _OUTPUT, _BATCH = "input", "output", "batch"

#: From a batch of images, as the model takes them, to its tensors.
Run = Callable[[np.ndarray], list[np.ndarray]]


@dataclass(frozen=True)
class Seen:
    """A tensor of a model: its shape without the batch axis, None where it has none, and dtype."""

    shape: tuple[int, ...] | None
    dtype: str


def look_at_outputs(run: Run, given: SourceInput) -> list[Seen]:
    """Run on 2 and on 3 images: the batch axis is the one that grows; on 1 where that is fixed."""
    numbers = (2, 3) if given.batch is None else (1, 1)
    few, more = (run(np.repeat(given.example(), number, axis=0)) for number in numbers)
    return [
        Seen(_shape_of_one((one.shape, two.shape), numbers), one.dtype.name)
        for one, two in zip(few, more, strict=True)
    ]


def _shape_of_one(
    shapes: tuple[tuple[int, ...], tuple[int, ...]], numbers: tuple[int, int]
) -> tuple[int, ...] | None:
    one, two = shapes
    same = one and two and (one[0], two[0]) == numbers and one[1:] == two[1:]
    return one[1:] if same else None


def in_steps(run: Run, images: np.ndarray, given: SourceInput) -> list[np.ndarray]:
    """Run on any number of images, one at a time where the batch size is fixed."""
    step = given.batch or len(images)
    parts = [run(images[start : start + step]) for start in range(0, len(images), step)]
    return [np.concatenate(tensors) for tensors in zip(*parts, strict=True)]


def layout_of(shape: tuple[int, ...], axes: str) -> str | None:
    """The layout of an activation of this shape (without the batch axis); axes: of the maps."""
    return {1: "NC", 2: "NTC", 3: axes}.get(len(shape))


def expose(
    model: ir.Model,
    given: SourceInput,
    own: Sequence[tuple[ir.Value, Seen]],
    layers: Sequence[tuple[Layer, ir.Value, Seen]],
) -> list[Layer]:
    """Make a graph's outputs the model's own, then its layers, typed and named, in place.

    Args:
        model: with one input; what outputs it has are dropped.
        given: that input.
        own: the model's own outputs; one without a batch axis is no answer for an image and goes.
        layers: with the values that are theirs; a value may come more than once.

    Returns:
        The layer table.
    """
    own = [(value, seen) for value, seen in own if seen.shape is not None]
    asked = [*own, *((value, seen) for _, value, seen in layers)]
    outputs: list[ir.Value] = []
    for value, seen in asked:
        if value.producer() is None or value in outputs:  # an output has a node and one name
            copy = ir.node("Identity", [value])
            model.graph.append(copy)
            value = copy.outputs[0]
        assert seen.shape is not None
        value.shape = ir.Shape([given.batch or _BATCH, *seen.shape])
        value.type = ir.TensorType(ir.DataType.from_numpy(np.dtype(seen.dtype)))
        outputs.append(value)
    model.graph.outputs[:] = outputs

    (image,) = model.graph.inputs
    image.shape = ir.Shape([given.batch or _BATCH, *given.shape[1:]])
    others = [value for value in values_of(model) if value.name == INPUT and value is not image]
    ir.convenience.rename_values([*others, image], [*(f"{INPUT}/inner" for _ in others), INPUT])
    names = [_OUTPUT if place == 0 else f"{_OUTPUT}#{place + 1}" for place in range(len(own))]
    names += [layer.name for layer, _, _ in layers]
    tensors = name_outputs(model, names, taken=[INPUT])
    strip_metadata(model, keep=frozenset())
    passes.RemoveUnusedNodesPass()(model)
    return [
        replace(layer, tensor=tensor)
        for (layer, _, _), tensor in zip(layers, tensors[len(own) :], strict=True)
    ]
