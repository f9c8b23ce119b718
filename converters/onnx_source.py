"""The ONNX file as it came, run by ONNX Runtime: what a conversion is compared with."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort

from nrp_onnx.backbone.external_data import read_small_tensors, session_options
from nrp_onnx.errors import ModelError


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
