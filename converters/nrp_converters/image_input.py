"""The one image input that a TensorFlow model must have."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nrp_onnx.backbone.preprocessing import Preprocessing
from nrp_onnx.backbone.preprocessing_nodes import check_fits
from nrp_onnx.errors import ModelError, OptionError

_EXPECTED = "one input of shape (batch, H, W, 3) or (batch, 3, H, W), float32 or float16"


@dataclass(frozen=True)
class SourceInput:
    """What a model takes: ``dtype`` is float32 or float16, ``batch`` 1 or None (any number)."""

    height: int
    width: int
    layout: str
    dtype: str
    batch: int | None

    @property
    def shape(self) -> tuple[int | None, int, int, int]:
        """With the batch axis first."""
        if self.layout == "NHWC":
            return (self.batch, self.height, self.width, 3)
        return (self.batch, 3, self.height, self.width)

    def example(self) -> np.ndarray:
        """One grey image."""
        return np.zeros((1, *self.shape[1:]), self.dtype)

    def fitted(self, spec: Preprocessing, where: str) -> Preprocessing:
        """The preprocessing with what it leaves open filled in.

        Raises:
            OptionError: if it does not give what the model takes.
        """
        spec = spec.for_input(self.height, self.width, self.layout, self.dtype)
        check_fits(spec, self.height, self.width, self.layout, self.dtype, where)
        return spec


def image_input(
    inputs: Sequence[tuple[str, Sequence[int | None] | None, str]],
    size: tuple[int, int] | None,
    where: Any,
) -> SourceInput:
    """The image input among a model's inputs.

    Args:
        inputs: of each its name, its shape (None where an axis is open) and its dtype.
        size: (height, width) in pixels, for what the model leaves open; else it must agree.
        where: the model, for errors.

    Raises:
        ModelError: if there is no such input, or another beside it.
        OptionError: if the size is open and none is given, or it is not the model's.
    """
    found = ", ".join(
        f"{name} {'?' if shape is None else tuple(shape)} {dtype}" for name, shape, dtype in inputs
    )
    wrong = ModelError(
        "the model has no single image input",
        where=where,
        expected=_EXPECTED,
        found=found or "none",
    )
    if len(inputs) != 1:
        raise wrong
    _, shape, dtype = inputs[0]
    if shape is None or len(shape) != 4 or dtype not in ("float32", "float16"):
        raise wrong
    if shape[3] == 3:
        layout, height, width = "NHWC", shape[1], shape[2]
    elif shape[1] == 3:
        layout, height, width = "NCHW", shape[2], shape[3]
    else:
        raise wrong
    if shape[0] not in (None, 1):
        raise ModelError(
            "the batch size is fixed",
            where=where,
            expected="an open batch axis, or 1",
            found=shape[0],
        )
    if size is None and (height is None or width is None):
        raise OptionError(
            "the model leaves its image size open",
            where=where,
            expected="a size in pixels",
            found=found,
            fix="Give it with --input-size, such as 224x224.",
        )
    if size is not None and (height or size[0], width or size[1]) != size:
        raise OptionError(
            "the model takes images of another size",
            where=where,
            expected=f"{height or 'any'} x {width or 'any'}",
            found=f"{size[0]} x {size[1]}",
            fix="Leave --input-size out.",
        )
    if size is not None:
        height, width = size
    assert height is not None
    assert width is not None
    return SourceInput(height, width, layout, dtype, shape[0])
