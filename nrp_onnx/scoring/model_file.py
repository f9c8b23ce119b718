"""Models that are given as objects of a framework become files, as every stage takes them."""

import importlib
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from nrp_onnx.errors import ModelError
from nrp_onnx.notes import Notes


@contextmanager
def backbone_file(model: Any, preprocess: str | None, notes: Notes) -> Iterator[Path]:
    """The ONNX file of a model; one that is made from an object is gone after the block.

    Args:
        model: a path, or what `nrp_onnx.convert` takes.
        preprocess: for an object, see `nrp_onnx.convert`.

    Raises:
        ModelError: if it is neither, or cannot be converted.
    """
    if isinstance(model, str | Path):
        yield Path(model)
        return
    # Converters are plug-ins: core code reaches them by name only.
    conversion = importlib.import_module("nrp_onnx.converters.conversion")
    if not conversion.is_model(model):
        raise ModelError(
            "this is no model",
            expected="the path of an ONNX file, a torch.nn.Module or a keras.Model",
            found=type(model).__name__,
        )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{type(model).__name__}.onnx"
        conversion.convert(model, preprocessing=preprocess, notes=notes).save(path)
        yield path
