"""The weights of a TensorFlow.js model: sharded files that a manifest describes, or base64 in its JSON.

The files of a group, one after another, hold its weights without gaps, in little-endian order.
Quantised weights are ``q * scale + min``.
"""

import base64
import binascii
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np

from nrp_onnx.errors import ModelError

_DTYPES = {"float32": "<f4", "int32": "<i4", "bool": "u1", "uint8": "u1", "complex64": "<c8"}
_QUANTISED = {"uint8": "u1", "uint16": "<u2", "float16": "<f2"}
_DATA_URI = "data:"


class Quantisation(msgspec.Struct):
    """How a weight is stored: ``min`` and ``scale`` are there unless it is float16."""

    dtype: Literal["uint8", "uint16", "float16"]
    scale: float = 1.0
    min: float = 0.0


class WeightSpec(msgspec.Struct):
    """A weight of the manifest."""

    name: str
    shape: list[int]
    dtype: str
    quantization: Quantisation | None = None


class Group(msgspec.Struct):
    """Weights that lie one after another in some files."""

    weights: list[WeightSpec]
    paths: list[str] = []


def read_weights(content: Mapping[str, Any], folder: Path, where: str) -> dict[str, np.ndarray]:
    """All weights by name, in the order of the manifest.

    Args:
        content: of model.json: ``weightsManifest``, or ``weightSpecs`` with ``weightData`` in
            base64.
        folder: of model.json; no file outside it is read.

    Raises:
        ModelError: if there are none, a file is missing or outside, its length is not what the
            manifest says, or a weight is of a kind that is not read.
    """
    found: dict[str, np.ndarray] = {}
    for group, data in _groups(content, folder, where):
        start = 0
        for spec in group.weights:
            found[spec.name], start = _weight(spec, data, start, where)
        if start != len(data):
            raise _damaged(where, f"weights of {start} bytes, as in its manifest", len(data))
    return found


def quantised_as(content: Mapping[str, Any]) -> list[str]:
    """The dtypes that weights are quantised to."""
    specs = [
        spec
        for group in [
            *(content.get("weightsManifest") or []),
            {"weights": content.get("weightSpecs")},
        ]
        for spec in group.get("weights") or []
    ]
    return sorted({spec["quantization"]["dtype"] for spec in specs if spec.get("quantization")})


def _groups(content: Mapping[str, Any], folder: Path, where: str) -> list[tuple[Group, bytes]]:
    try:
        if content.get("weightData") is not None:
            specs = msgspec.convert(content.get("weightSpecs"), list[WeightSpec])
            return [(Group(specs), _decoded(content["weightData"], where))]
        groups = msgspec.convert(content.get("weightsManifest"), list[Group])
    except msgspec.ValidationError as error:
        raise ModelError(
            "the manifest of its weights cannot be read",
            where=where,
            expected="weightsManifest, or weightSpecs and weightData in base64",
            found=error,
        ) from None
    return [
        (group, b"".join(_file(path, folder, where) for path in group.paths)) for group in groups
    ]


def _decoded(text: Any, where: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, TypeError, ValueError) as error:
        raise ModelError(
            "its weights are no base64", where=where, expected="base64", found=error
        ) from None


def _file(name: str, folder: Path, where: str) -> bytes:
    if name.startswith(_DATA_URI):
        return _decoded(name.partition(",")[2], where)
    path = folder / name
    inside = Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder))
    if not inside or not path.is_file():
        raise ModelError(
            "a file of its weights is not there"
            if inside
            else "its weights lie outside its folder",
            where=where,
            expected="the files of the manifest beside model.json",
            found=repr(name),
            fix="Get all files of the model." if inside else None,
        )
    return path.read_bytes()


def _weight(spec: WeightSpec, data: bytes, start: int, where: str) -> tuple[np.ndarray, int]:
    """A weight, and where the next begins."""
    if spec.dtype not in _DTYPES or any(side < 0 for side in spec.shape):
        raise ModelError(
            f"the weight {spec.name} is of a kind that is not read",
            where=where,
            expected=f"one of {', '.join(_DTYPES)}, of a fixed shape",
            found=f"{spec.dtype} {tuple(spec.shape)}",
        )
    how = spec.quantization
    stored = np.dtype(_DTYPES[spec.dtype] if how is None else _QUANTISED[how.dtype])
    size = math.prod(spec.shape)
    end = start + size * stored.itemsize
    if end > len(data):
        raise _damaged(where, f"at least {end} bytes, for {spec.name}", len(data))
    values = np.frombuffer(data, stored, size, start).reshape(spec.shape)
    if how is not None and how.dtype != "float16":
        values = values * how.scale + how.min
        values = np.round(values) if spec.dtype == "int32" else values
    dtype = np.dtype(np.bool_) if spec.dtype == "bool" else np.dtype(_DTYPES[spec.dtype])
    return values.astype(dtype), end


def _damaged(where: str, expected: str, found: int) -> ModelError:
    return ModelError(
        "the files of its weights are of another length",
        where=where,
        expected=expected,
        found=f"{found} bytes",
        fix="Get all files of the model again.",
    )


def names_of(specs: Sequence[str], most: int = 3) -> str:
    """The first of some names, for errors."""
    return ", ".join(specs[:most]) + (", ..." if len(specs) > most else "")
