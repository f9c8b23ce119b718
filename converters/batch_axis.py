"""Opens the batch axis of a graph that was exported for one image, where the graph allows it.

Whether it does is no question for shape inference: constants in Reshape, Expand or Concat decide. So
the rewritten graph is run on several images at once, and each must come out as it does alone.
"""

import numpy as np
import onnx_ir as ir

from nrp_onnx.backbone.layers import image_dependent_nodes
from nrp_onnx.backbone.model import ImageInput

BATCH = "batch"


def set_input_shape(
    model: ir.Model, given: ImageInput, height: int, width: int, batch: int | str
) -> None:
    """Give the image input this shape, in place, and forget what was inferred from the old one."""
    (value,) = (value for value in model.graph.inputs if value.name == given.name)
    size = (3, height, width) if given.layout == "NCHW" else (height, width, 3)
    value.shape = ir.Shape([batch, *size])
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
