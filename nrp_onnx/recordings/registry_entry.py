"""One entry of the registry: what recordings hold, where their files are, how they are imported."""

import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from nrp_onnx.errors import RecordingsError
from nrp_onnx.files import sha256_of_json
from nrp_onnx.recordings.recordings import DEGREES, is_degrees

#: The files that each importer takes.
ROLES = {"brainio": ("assembly", "stimuli", "images")}
#: Goes up when an importer makes other recordings from the same files.
_IMPORT_VERSION = 2


@dataclass(frozen=True)
class PublicFile:
    """A file to download: its name in the cache, its URL, its hash as ``algorithm:digits``."""

    name: str
    url: str
    hash: str
    about_bytes: int | None = None


@dataclass(frozen=True)
class Entry:
    """Public recordings.

    Attributes:
        name: what ``--recordings`` calls them.
        regions: number of sites by region.
        visual_degrees: that an image filled when it was shown.
        stratify_on: the label of the stimuli that splits are stratified on.
        importer, options: a key of `ROLES`, and its further arguments.
        files: by role.
        source: where the entry is from, for messages.
    """

    name: str
    title: str
    species: str
    regions: dict[str, int]
    n_stimuli: int | None
    licence: str | None
    citation: str | None
    visual_degrees: float | None
    stratify_on: str | None
    importer: str
    options: dict[str, Any]
    files: dict[str, PublicFile]
    source: str

    @property
    def about_bytes(self) -> int | None:
        """Of all files whose size is known; None if none is."""
        known = [file.about_bytes for file in self.files.values() if file.about_bytes]
        return sum(known) or None

    @property
    def sizes_are_known(self) -> bool:
        return all(file.about_bytes for file in self.files.values())

    @property
    def fingerprint(self) -> str:
        """SHA-256 over all that changes what is imported; not over the URLs."""
        hashes = {role: file.hash.lower() for role, file in self.files.items()}
        return sha256_of_json(
            [
                _IMPORT_VERSION,
                self.name,
                self.importer,
                self.options,
                hashes,
                self.licence,
                self.citation,
                self.visual_degrees,
                self.stratify_on,
            ]
        )


def check_name(name: str, where: object) -> None:
    """Refuse a name that is no plain word, since it also names folders of the cache.

    Raises:
        RecordingsError: if it is none, or means the simulation.
    """
    if not re.fullmatch(r"[a-z0-9][a-z0-9._-]*", name) or name == "simulated":
        raise RecordingsError(
            "this is no name for public recordings",
            where=where,
            expected="small letters, digits and . _ -; not simulated",
            found=repr(name),
        )


def read_entry(name: str, content: Any, source: str) -> Entry:
    """Make an entry from a table of the registry file.

    Raises:
        RecordingsError: for the first thing that is wrong with it.
    """
    check_name(name, source)
    where = f"{source}, [{name}]"
    known = _checked(content, _ENTRY, where)
    if known["importer"] not in ROLES:
        raise RecordingsError(
            "there is no such importer",
            where=where,
            expected=" or ".join(ROLES),
            found=known["importer"],
        )
    roles = ROLES[known["importer"]]
    if set(known["files"]) != set(roles):
        raise RecordingsError(
            "these are not the files of the importer",
            where=where,
            expected=", ".join(f"files.{role}" for role in roles),
            found=", ".join(f"files.{role}" for role in known["files"]) or "none",
        )
    files = {}
    for role in roles:
        file = _checked(known["files"][role], _FILE, f"{source}, [{name}.files.{role}]")
        files[role] = PublicFile(**file)
    if len({file.name.lower() for file in files.values()}) < len(files):
        raise RecordingsError(
            "two files have one name",
            where=where,
            found=", ".join(file.name for file in files.values()),
        )
    return Entry(name=name, source=source, **(known | {"files": files}))


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _is_counts(value: Any) -> bool:
    return isinstance(value, dict) and bool(value) and all(map(_is_count, value.values()))


def _is_table(value: Any) -> bool:
    return isinstance(value, dict)


def _is_options(value: Any) -> bool:
    try:
        sha256_of_json(value)  # no dates, no nan
    except (TypeError, ValueError):
        return False
    return isinstance(value, dict)


def _is_file_name(value: Any) -> bool:
    return isinstance(value, str) and bool(re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._ +-]*", value))


def _is_url(value: Any) -> bool:
    try:
        parts = urlsplit(value)
        return parts.scheme in ("http", "https") and bool(parts.hostname)
    except (ValueError, AttributeError, TypeError):
        return False


def _is_hash(value: Any) -> bool:
    algorithm, _, digits = value.partition(":") if isinstance(value, str) else ("", "", "")
    if algorithm not in hashlib.algorithms_guaranteed or algorithm.startswith("shake"):
        return False
    length = 2 * hashlib.new(algorithm, usedforsecurity=False).digest_size
    return bool(re.fullmatch(rf"[0-9a-fA-F]{{{length}}}", digits))


@dataclass(frozen=True)
class _Key:
    is_right: Callable[[Any], bool]
    expected: str
    default: Any = ...


_ENTRY = {
    "title": _Key(_is_text, "a text"),
    "species": _Key(_is_text, "a text"),
    "regions": _Key(_is_counts, "a number of sites for each region"),
    "n_stimuli": _Key(_is_count, "a whole number", None),
    "licence": _Key(_is_text, "a text", None),
    "citation": _Key(_is_text, "a text", None),
    "visual_degrees": _Key(is_degrees, DEGREES, None),
    "stratify_on": _Key(_is_text, "a column of the stimuli", None),
    "importer": _Key(_is_text, " or ".join(ROLES)),
    "options": _Key(
        _is_options, "arguments of the importer: texts, numbers, true, false, lists", {}
    ),
    "files": _Key(_is_table, "a table for each file"),
}
_FILE = {
    "name": _Key(_is_file_name, "a file name without folders"),
    "url": _Key(_is_url, "an http or https address"),
    "hash": _Key(_is_hash, "algorithm:digits, such as sha256: and 64 hex digits"),
    "about_bytes": _Key(_is_count, "a whole number", None),
}


def _checked(content: Any, keys: Mapping[str, _Key], where: str) -> dict[str, Any]:
    """The values of all keys, each right or its default."""
    if not isinstance(content, dict):
        raise RecordingsError(
            "this is no table", where=where, expected=", ".join(keys), found=repr(content)
        )
    if unknown := [str(key) for key in content if key not in keys]:
        raise RecordingsError(
            f"the key {unknown[0]} is unknown", where=where, expected=", ".join(keys)
        )
    values = {}
    for name, key in keys.items():
        value = content.get(name)
        if value is None and key.default is not ...:
            values[name] = key.default
        elif value is not None and key.is_right(value):
            values[name] = value
        else:
            raise RecordingsError(
                f"the key {name} is {'missing' if value is None else 'wrong'}",
                where=where,
                expected=key.expected,
                found="nothing" if value is None else repr(value),
            )
    return values
