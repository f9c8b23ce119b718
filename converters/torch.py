"""PyTorch: any ``nn.Module`` to an ONNX backbone with every module's output exposed by its path."""

import json
import logging
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import Tensor, nn

from nrp_onnx.backbone.layer_table import (
    LAYERS_KEY,
    PREPROCESSING_KEY,
    SOURCE_KEY,
    Layer,
    guess_layout,
    layers_to_json,
)
from nrp_onnx.backbone.preprocessing import Preprocessing
from nrp_onnx.errors import ModelError
from nrp_onnx.files import whole_file

INPUT, OUTPUT = "input", "output"
_DTYPES = {torch.float32: "float32", torch.float16: "float16"}
#: Node metadata that may hold code and paths of the machine that exported the model.
_TRACES = ("stack_trace", "fx_node")


@dataclass(frozen=True)
class ConvertedModel:
    """A backbone made from a framework's model: its ONNX form and its layer table."""

    proto: onnx.ModelProto
    layers: list[Layer]

    def save(self, path: str | Path) -> None:
        """Write the model to one file, whole or not at all."""
        with whole_file(Path(path)) as part:
            onnx.save(self.proto, part)


class _Exposed(nn.Module):
    """A module that returns its output and then the outputs of the modules inside it.

    A module that is called several times gives ``path#1``, ``path#2``, ... in the order of its calls.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module
        self.names: list[str] = []
        self.ops: list[str] = []

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        made: list[tuple[str, str, Tensor]] = []
        with _listening(self.module, made):
            output = self.module(x)
        if not isinstance(output, Tensor):
            output = next(iter(output.values() if isinstance(output, dict) else output))
        calls = Counter(path for path, _, _ in made)
        seen: Counter[str] = Counter()
        self.names, self.ops = [], []
        for path, op, _ in made:
            seen[path] += 1
            self.names.append(path if calls[path] == 1 else f"{path}#{seen[path]}")
            self.ops.append(op)
        return (output, *(tensor for _, _, tensor in made))


@contextmanager
def _listening(module: nn.Module, made: list[tuple[str, str, Tensor]]) -> Iterator[None]:
    """While the block runs, append (path, class, output) for each call of a module inside."""

    def listen(path: str) -> Any:
        def hook(child: nn.Module, _inputs: Any, output: Any) -> None:
            if isinstance(output, Tensor) and output.is_floating_point() and 2 <= output.dim() <= 4:
                # A copy: an in-place operation that follows must not change what was captured.
                made.append((path, type(child).__name__, output.clone()))

        return hook

    handles = [
        child.register_forward_hook(listen(path)) for path, child in module.named_modules() if path
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def convert(
    module: nn.Module,
    example_input: Tensor,
    *,
    preprocessing: Preprocessing,
    source: dict[str, Any] | None = None,
) -> ConvertedModel:
    """Convert a module; every module inside it that gives one activation becomes an output.

    Args:
        module: takes one image tensor of shape (batch, 3, H, W); it is left as it was.
        example_input: float32 or float16, (batch, 3, H, W).
        preprocessing: from uint8 RGB images to the module's input.
        source: facts for the metadata, such as where the weights come from.

    Raises:
        ModelError: if the module cannot be exported; with PyTorch's reason.
    """
    where = type(module).__name__
    exposed = _Exposed(module)
    training = {child: child.training for child in module.modules()}
    exposed.eval()
    try:
        # Two images: a batch of one would be taken for a constant.
        example = torch.cat([example_input[:1]] * 2)
        with torch.no_grad(), _quiet_exporter():
            outputs = exposed(example)
            names, ops = list(exposed.names), list(exposed.ops)
            program = torch.onnx.export(
                exposed,
                (example,),
                dynamo=True,
                input_names=[INPUT],
                output_names=[OUTPUT, *_tensor_names(names)],
                dynamic_shapes=({0: torch.export.Dim("batch", min=1)},),
                verbose=False,
            )
    except Exception as error:  # torch.export has no exception family of its own
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise ModelError(
            "PyTorch cannot export this module",
            where=where,
            expected="one image tensor in, no control flow that depends on its values",
            found=f"{type(error).__name__}: {reason[0][:200]}",
            fix="Rewrite what depends on values, or export the part before it.",
        ) from None
    finally:
        for child, mode in training.items():
            child.training = mode
    assert program is not None
    layers = []
    for depth, (name, tensor, op, value) in enumerate(
        zip(names, _tensor_names(names), ops, outputs[1:], strict=True)
    ):
        shape = tuple(value.shape[1:])
        layers.append(Layer(name, tensor, shape, guess_layout(shape), op, depth))
    height, width = example_input.shape[2:]
    spec = preprocessing.for_input(
        int(height), int(width), "NCHW", _DTYPES[example_input.dtype]
    )
    proto = program.model_proto
    _name_the_batch(proto)
    _strip_traces(proto)
    facts = {
        "framework": "torch",
        "version": torch.__version__,
        "class": where,
        "n_parameters": sum(parameter.numel() for parameter in module.parameters()),
        **(source or {}),
    }
    metadata = {
        LAYERS_KEY: layers_to_json(layers),
        PREPROCESSING_KEY: json.dumps(spec.to_json()),
        SOURCE_KEY: json.dumps(facts),
    }
    onnx.helper.set_model_props(proto, metadata)
    return ConvertedModel(proto, layers)


@contextmanager
def _quiet_exporter() -> Iterator[None]:
    """Keep the exporter's remarks on packages that it does not need off the user's screen."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _tensor_names(names: list[str]) -> list[str]:
    """The layers' own names, kept apart from those of the input and the output."""
    return [f"{name}/layer" if name in (INPUT, OUTPUT) else name for name in names]


def _name_the_batch(proto: onnx.ModelProto) -> None:
    for value in (*proto.graph.input, *proto.graph.output):
        dim = value.type.tensor_type.shape.dim[0]
        if not dim.HasField("dim_value"):
            dim.dim_param = "batch"


def _strip_traces(proto: onnx.ModelProto) -> None:
    """Remove from nodes and graph what tells of the exporting machine; the name scopes stay."""
    for node in proto.graph.node:
        kept = [entry for entry in node.metadata_props if not entry.key.endswith(_TRACES)]
        kept = [onnx.StringStringEntryProto(key=entry.key, value=entry.value) for entry in kept]
        del node.metadata_props[:]
        node.metadata_props.extend(kept)
        node.doc_string = ""
    proto.doc_string = proto.graph.doc_string = ""
