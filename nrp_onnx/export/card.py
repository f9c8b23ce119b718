"""The card of an exported predictor: what it is, in the metadata of each model and as predictor.json.

Engines without an interface for metadata read the JSON file that lies beside the model.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import msgspec

from nrp_onnx.backbone.model import read_onnx
from nrp_onnx.errors import ModelError

#: Of the keys of the metadata.
PREFIX = "nrp_onnx."
SCHEMA_KEY, SCORES_KEY = f"{PREFIX}schema", f"{PREFIX}scores"
TRAINED_ON_KEY = f"{PREFIX}trained_on"
#: Of the form of cards and exported models: a file with a larger number was made by a newer version.
CARD_SCHEMA = 1
_ENDINGS = (".onnx", ".json")


@dataclass(frozen=True)
class TrainedOn:
    """Which images a predictor was fitted to.

    Attributes:
        what: in words, such as ``the training images of fold 0``.
        n_images: how many they are.
        not_seen: ids of the stimuli that it did not see.
    """

    what: str
    n_images: int
    not_seen: list[str]


@dataclass(frozen=True)
class OfModel:
    """The backbone: its file's name, and the SHA-256 of its bytes."""

    file: str
    sha256: str
    n_parameters: int


@dataclass(frozen=True)
class OfRecordings:
    """The recordings: where they are from, and the SHA-256 of what was recorded."""

    name: str
    fingerprint: str
    n_stimuli: int
    citation: str | None
    licence: str | None


@dataclass(frozen=True)
class Variant:
    """How a smaller predictor differs from the one that it was made of.

    Attributes:
        what: was changed, in words.
        n_images: that both were run on: images that it was not fitted to.
        largest_change_sd: of a rate, in standard deviations of its site's rates.
        nrp_error_before, nrp_error: by region, on these images, in units of the score.
    """

    what: str
    n_images: int
    largest_change_sd: float
    nrp_error_before: dict[str, float]
    nrp_error: dict[str, float]


@dataclass(frozen=True)
class Card:
    """What a predictor is.

    Attributes:
        predictor: its name in the result, such as ``nrp+masked_kernel``.
        simulated: whether the responses come from a model rather than from a brain.
        units: of the rates.
        sites: their ids, in the order of the rates.
        regions: one a site.
        scores: for each region the held-out NRP-error with its interval, the noise floor, and the name
            of the recordings.
        score_units: of these errors.
        trained_on: which images it saw.
        protocol: how images were split and rates scaled, as in result.json.
        layers: the layers that it reads, and their reductions.
        preprocessing: as in result.json; it is part of the graph.
        run: SHA-256 of the settings of the score.
        versions: of Python and of packages.
        variant: of a smaller predictor; None of the one that was scored.
    """

    predictor: str
    simulated: bool
    units: str
    sites: list[str]
    regions: list[str]
    scores: dict[str, dict[str, Any]]
    score_units: str
    trained_on: TrainedOn
    model: OfModel
    recordings: OfRecordings
    protocol: dict[str, Any]
    layers: dict[str, str]
    preprocessing: dict[str, Any]
    run: str
    versions: dict[str, str]
    schema: int = CARD_SCHEMA
    variant: Variant | None = None

    def metadata(self) -> dict[str, str]:
        """Keys and texts for an ONNX model: a text as it is, anything else as JSON."""
        content = asdict(self)
        return {
            f"{PREFIX}{key}": value if isinstance(value, str) else json.dumps(value)
            for key, value in content.items()
            if value is not None
        }

    def lines(self) -> list[tuple[str, str]]:
        """What people want to know, as names and texts."""
        layers = ", ".join(f"{name} ({reduction})" for name, reduction in self.layers.items())
        sites = [f"{self.regions.count(x)} in {x}" for x in dict.fromkeys(self.regions)]
        kind = "SIMULATED responses" if self.simulated else "recorded responses"
        found = [
            ("predictor", f"{self.predictor}, rates in {self.units}"),
            ("model", f"{self.model.file}, {self.model.n_parameters:,} parameters"),
            ("", f"sha256 {self.model.sha256}"),
            ("recordings", f"{self.recordings.name}: {kind}, {self.recordings.n_stimuli:,} images"),
            ("citation", self.recordings.citation or "not known"),
            ("licence", self.recordings.licence or "not known"),
            ("sites", ", ".join(sites)),
        ]
        for name, score in self.scores.items():
            error, floor = score["nrp_error"], score["noise_floor"]
            low, high = error["ci95"]
            noise = "not known" if floor is None else f"{floor:.3f}"
            found.append(
                (
                    f"NRP-error {name}",
                    f"{error['value']:.3f} [{low:.3f}, {high:.3f}] {self.score_units}, held out; "
                    f"noise floor {noise}",
                )
            )
        if self.variant is not None:
            errors = ", ".join(
                f"{name} {self.variant.nrp_error_before[name]:.4f} -> {error:.4f}"
                for name, error in self.variant.nrp_error.items()
            )
            found.append(
                (
                    "variant",
                    f"{self.variant.what}; on {self.variant.n_images:,} images rates move by at most "
                    f"{self.variant.largest_change_sd:.2g} sd, NRP-error {errors}",
                )
            )
        return [
            *found,
            ("protocol", f"{self.protocol.get('name')}, seed {self.protocol.get('seed')}"),
            ("trained on", f"{self.trained_on.n_images:,} images: {self.trained_on.what}"),
            ("layers", layers),
            ("preprocessing", json.dumps(self.preprocessing)),
            ("versions", ", ".join(f"{name} {text}" for name, text in self.versions.items())),
            ("run", self.run),
        ]


def read_card(path: str | Path) -> Card:
    """The card of a model that ``score`` exported, or of the predictor.json beside it.

    Example:
        >>> import nrp_onnx as nrp
        >>> nrp.read_card("runs/a/predictor.onnx").trained_on.n_images  # doctest: +SKIP
        2560

    Raises:
        ModelError: if it is another file, or made by a newer version.
    """
    path = Path(path)
    if path.suffix not in _ENDINGS or not path.is_file():
        raise ModelError(
            "no such card", where=path, expected="predictor.onnx or predictor.json of a run"
        )
    content = _of_onnx(path) if path.suffix == ".onnx" else _of_json(path)
    schema = content.get("schema")
    if isinstance(schema, int) and schema > CARD_SCHEMA:
        raise ModelError(
            "this card was made by a newer version of nrp-onnx",
            where=path,
            expected=f"a card of schema {CARD_SCHEMA}",
            found=schema,
            fix="Update nrp-onnx.",
        )
    try:
        return msgspec.convert(content, Card)
    except msgspec.ValidationError as error:
        raise _no_card(path, str(error)) from None


def _no_card(path: Path, found: str) -> ModelError:
    return ModelError(
        "this file has no card",
        where=path,
        expected="a model that nrp-onnx score exported, or the JSON file beside it",
        found=found,
    )


def _of_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except ValueError as error:
        raise _no_card(path, str(error)) from None
    if not isinstance(content, dict):
        raise _no_card(path, "no JSON object")
    return content


def _of_onnx(path: Path) -> dict[str, Any]:
    """The metadata of a model, read as they were written."""
    texts = {name for name, kind in Card.__annotations__.items() if kind is str}
    found: dict[str, Any] = {}
    for entry in read_onnx(path).metadata_props:
        key = entry.key.removeprefix(PREFIX)
        if key == entry.key:
            continue
        try:
            found[key] = entry.value if key in texts else json.loads(entry.value)
        except ValueError as error:
            raise _no_card(path, f"{entry.key}: {error}") from None
    return found
