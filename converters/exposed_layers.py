"""What a TensorFlow model's tensors look like for one image, and their names in the ONNX graph."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common as passes

from nrp_onnx.backbone.layer_table import Layer
from nrp_onnx.converters.converted_model import name_outputs, strip_metadata, values_of
from nrp_onnx.converters.image_input import ImageInput

INPUT, _OUTPUT, _BATCH = "input", "output", "batch"

#: From a batch of images, as the model takes them, to its tensors.
Run = Callable[[np.ndarray], list[np.ndarray]]


@dataclass(frozen=True)
class Seen:
    """A tensor of a model: its shape without the batch axis, None where it has none, and dtype."""

    shape: tuple[int, ...] | None
    dtype: str


def look_at_outputs(run: Run, given: ImageInput) -> list[Seen]:
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


def in_steps(run: Run, images: np.ndarray, given: ImageInput) -> list[np.ndarray]:
    """Run on any number of images, one at a time where the batch size is fixed."""
    step = given.batch or len(images)
    parts = [run(images[start : start + step]) for start in range(0, len(images), step)]
    return [np.concatenate(tensors) for tensors in zip(*parts, strict=True)]


def layout_of(shape: tuple[int, ...], axes: str) -> str | None:
    """The layout of an activation of this shape (without the batch axis); axes: of the maps."""
    return {1: "NC", 2: "NTC", 3: axes}.get(len(shape))


def expose(
    model: ir.Model,
    given: ImageInput,
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
