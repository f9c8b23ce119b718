"""The classes that a network with a classifier sees in photographs.

Parity shows that a model computes what its source computes. Whether the source was read right, filters
in their order and channels in theirs, a photograph shows: its class is known.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nrp_onnx.activations.session import open_session
from nrp_onnx.backbone.feature_graph import IMAGES, Feature, build_feature_graph, to_checked_proto
from nrp_onnx.backbone.layers import Layer
from nrp_onnx.backbone.model import Backbone
from nrp_onnx.backbone.preprocessing import Preprocessing
from nrp_onnx.backbone.reductions import Reduction
from nrp_onnx.decoding import decode_image
from nrp_onnx.errors import ModelError, OptionError
from nrp_onnx.notes import Notes

#: How many classes of a photograph are shown.
TOP = 5
_SUM_TOLERANCE = 1e-2


@dataclass(frozen=True)
class SeenClass:
    """A class of a photograph.

    Attributes:
        number: its place among the scores, from 0.
        label: its name; None where no labels are given.
        probability: of the scores, or of their softmax where they do not add up to 1.
    """

    number: int
    label: str | None
    probability: float


@dataclass(frozen=True)
class Photograph:
    """A photograph and its most likely classes, the likeliest first."""

    file: str
    classes: tuple[SeenClass, ...]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def top_classes(
    backbone: Backbone,
    preprocessing: Preprocessing,
    photographs: Sequence[Path],
    labels: Sequence[str] | None = None,
    notes: Notes | None = None,
) -> list[Photograph]:
    """The `TOP` classes of photographs, through the same nodes as stimuli.

    Args:
        backbone: its first output is taken for scores of classes.
        preprocessing: with size, layout and dtype filled in.
        labels: one a class; where the model has one class more, its first is the background, which
            is said.

    Raises:
        ModelError: if the model gives no scores of classes.
        OptionError: if there are more or fewer labels than classes.
        RecordingsError: if a photograph does not open.
    """
    feature = Feature(_scores_of(backbone), Reduction("none"))
    graph = build_feature_graph(backbone, preprocessing, [feature])
    content = to_checked_proto(graph, "classifier").SerializeToString()
    notes = notes or Notes()
    session = open_session(content, "cpu", notes, backbone.path, backbone.path.parent)
    names = _labels_of_classes(labels, feature.n_features, notes)
    found = []
    for path in photographs:
        (scores,) = session.run(None, {IMAGES: decode_image(path)[None]})
        chances = _probabilities(scores[0].astype(np.float64))
        best = np.argsort(-chances, kind="stable")[:TOP]
        classes = (
            SeenClass(int(i), None if names is None else names[i], float(chances[i])) for i in best
        )
        found.append(Photograph(str(path), tuple(classes)))
    return found


def _scores_of(backbone: Backbone) -> Layer:
    """The model's own first output, as a layer."""
    output = backbone.proto.graph.output[0]
    sizes = [dim.dim_value for dim in output.type.tensor_type.shape.dim][1:]
    shape = tuple(sizes)
    if not sizes or sizes[0] < 2 or any(size != 1 for size in sizes[1:]):
        raise ModelError(
            "the model gives no scores of classes",
            where=backbone.path,
            expected="a first output of shape (batch, classes)",
            found=f"{output.name} of shape (batch, {', '.join(map(str, sizes))})",
            fix="Leave --photo out, or convert the model with its classifier.",
        )
    return Layer("scores", output.name, shape, {1: "NC", 3: "NCHW"}.get(len(shape)), "", 0)


def _labels_of_classes(
    labels: Sequence[str] | None, n_classes: int, notes: Notes
) -> list[str] | None:
    if labels is None:
        return None
    if len(labels) == n_classes - 1:
        notes.say(
            f"the model has {n_classes} classes and --labels {len(labels)}: class 0 is taken for the "
            "background"
        )
        return ["background", *labels]
    if len(labels) != n_classes:
        raise OptionError(
            "these are not the labels of the model's classes",
            where="--labels",
            expected=f"{n_classes} labels",
            found=len(labels),
        )
    return list(labels)


def _probabilities(scores: np.ndarray) -> np.ndarray:
    """The scores where they are probabilities, else their softmax."""
    if (scores >= 0).all() and abs(scores.sum() - 1) < _SUM_TOLERANCE:
        return scores
    powers = np.exp(scores - scores.max())
    shares: np.ndarray = powers / powers.sum()
    return shares


def read_labels(path: Path) -> list[str]:
    """The names of classes, in the order of their numbers.

    Args:
        path: a text file with one a line; or JSON: a list of names, or a dict from numbers to names
            or to lists whose last part is the name, as Keras has them.

    Raises:
        OptionError: if it is neither.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise _no_labels(path, type(error).__name__) from None
    if path.suffix.lower() != ".json":
        return [line.strip() for line in text.rstrip().splitlines()]
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _no_labels(path, str(error)) from None
    if isinstance(content, dict):
        if set(content) != set(map(str, range(len(content)))):
            raise _no_labels(path, f"a dict with the keys {', '.join(list(content)[:3])}, ...")
        content = [content[str(number)] for number in range(len(content))]
    names = [
        name[-1] if isinstance(name, list) and name else name
        for name in (content if isinstance(content, list) else [])
    ]
    if not names or not all(isinstance(name, str) for name in names):
        raise _no_labels(path, type(content).__name__)
    return [str(name) for name in names]


def _no_labels(path: Path, found: str) -> OptionError:
    return OptionError(
        "these are no labels",
        where=f"--labels, {path}",
        expected="a text file with one a line, or JSON: a list, or a dict with the keys 0, 1, 2, ...",
        found=found,
    )
