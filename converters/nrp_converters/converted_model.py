"""What a converter makes: an ONNX backbone with its layers named and its origin written into it."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

from nrp_onnx.backbone.layers import (
    LAYERS_KEY,
    PREPROCESSING_KEY,
    SOURCE_KEY,
    Layer,
    layers_to_json,
)
from nrp_onnx.backbone.preprocessing import Preprocessing
from nrp_onnx.backbone.weight_files import save_model
from nrp_onnx.errors import OptionError
from nrp_onnx.notebook import html_table

#: Runs the source model on a batch in the backbone's own layout and dtype; each layer by its name.
RunSource = Callable[[np.ndarray], dict[str, np.ndarray]]
#: Takes such a batch; gives scores (n, n_classes), and the gradient of a loss, of the batch's shape.
ClassGradient = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class ConvertedModel:
    """An ONNX backbone whose outputs are the model's own, then one for each layer.

    Attributes:
        onnx: the model; its metadata holds the layer table, the preprocessing and the source, and
            once it is checked (`nrp_converters.parity`) the parity with its source.
        layers: the layer table.
        preprocessing: with size, layout and dtype filled in.
        run_source: the model that it was made from, to compare with.
        reference: what `run_source` runs, for people.
        class_gradient: gradients of the source, see `nrp_converters.torch.evaluation`; None where
            the framework is not PyTorch.
        data_folder: where the external data that ``onnx`` refers to lie; None where it has none.
    """

    onnx: onnx.ModelProto
    layers: list[Layer]
    preprocessing: Preprocessing
    run_source: RunSource
    reference: str = field(default="the source", kw_only=True)
    class_gradient: ClassGradient | None = field(default=None, kw_only=True)
    data_folder: Path | None = field(default=None, kw_only=True)

    def save(self, path: str | Path) -> None:
        """Write the model, whole or not at all: one file, and ``PATH.data`` if it is over 2 GB."""
        save_model(self.onnx, Path(path), self.data_folder)

    def _repr_html_(self) -> str:
        """The layers as a table, which a notebook shows."""
        heads = ("layer", "op", "shape", "layout")
        rows = [
            (
                layer.name,
                layer.op,
                "?" if layer.shape is None else " × ".join(map(str, layer.shape)),
                layer.layout or "?",
            )
            for layer in self.layers
        ]
        return html_table(heads, rows)


def name_outputs(model: ir.Model, names: Sequence[str], taken: Sequence[str]) -> list[str]:
    """Give the graph's outputs these names, in place; other values that have one make way.

    Args:
        names: one for each output, in order.
        taken: names of other values that must stay.

    Returns:
        The names given: those asked for, but for such as are taken or come twice.
    """
    outputs = list(model.graph.outputs)
    given: list[str] = []
    for name in names:
        given.append(_free(name, {*given, *taken}))
    others = [value for value in values_of(model) if value not in outputs]
    used = {*given, *(value.name for value in others if value.name)}
    clashing = [value for value in others if value.name in given]
    elsewhere: list[str] = []
    for value in clashing:
        elsewhere.append(_free(f"{value.name}/inner", used))
        used.add(elsewhere[-1])
    ir.convenience.rename_values([*clashing, *outputs], [*elsewhere, *given])
    return given


def strip_metadata(model: ir.Model, keep: frozenset[str]) -> None:
    """Remove, in place, all metadata and doc strings but these keys of the nodes.

    Exporters leave stack traces there, and with them the paths of the user's files.
    """
    for node in model.graph.all_nodes():
        node.doc_string = None
        for key in node.metadata_props.keys() - keep:
            del node.metadata_props[key]
    parts: list[ir.Model | ir.Graph | ir.Value] = [model, model.graph, *values_of(model)]
    for part in parts:
        part.doc_string = None
        part.metadata_props.clear()


def check_source(source: Mapping[str, Any]) -> None:
    """Refuse facts about a model's origin that its metadata cannot hold.

    Raises:
        OptionError: if they are no JSON.
    """
    try:
        json.dumps(dict(source), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise OptionError(
            "the source cannot be written as JSON",
            where="source",
            expected="strings, finite numbers, lists and dicts",
            found=error,
        ) from None


def write_metadata(
    model: ir.Model,
    layers: Sequence[Layer],
    preprocessing: Preprocessing,
    source: Mapping[str, Any],
) -> None:
    """Put what the toolkit reads into the model's ``metadata_props``, in place."""
    model.metadata_props[LAYERS_KEY] = layers_to_json(layers)
    model.metadata_props[PREPROCESSING_KEY] = json.dumps(preprocessing.to_json())
    model.metadata_props[SOURCE_KEY] = json.dumps(source, allow_nan=False)


def values_of(model: ir.Model) -> list[ir.Value]:
    """All values of a graph: its inputs, its initialisers and what its nodes make."""
    inner = (value for node in model.graph.all_nodes() for value in node.outputs)
    return list(dict.fromkeys([*model.graph.inputs, *model.graph.initializers.values(), *inner]))


def _free(name: str, taken: set[str]) -> str:
    free, number = name, 1
    while free in taken:
        free, number = f"{name}~{number}", number + 1
    return free
