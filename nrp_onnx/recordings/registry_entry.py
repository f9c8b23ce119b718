"""One entry of the registry: what recordings hold, where their files are, how they are imported."""

import hashlib
import re
from dataclasses import dataclass
from typing import Annotated, Any

from msgspec import Meta

from nrp_onnx.errors import RecordingsError
from nrp_onnx.file_schema import Count, Key, Text, read_keys
from nrp_onnx.files import sha256_of_json
from nrp_onnx.recordings.recordings import DEGREES, Degrees

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
    known = read_keys(content, _KEYS, where, RecordingsError)
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
        table, of_file = known["files"][role], f"{source}, [{name}.files.{role}]"
        files[role] = PublicFile(**read_keys(table, _FILE_KEYS, of_file, RecordingsError))
    if len({file.name.lower() for file in files.values()}) < len(files):
        raise RecordingsError(
            "two files have one name",
            where=where,
            found=", ".join(file.name for file in files.values()),
        )
    return Entry(name=name, source=source, **(known | {"files": files}))


def _is_json(value: Any) -> bool:
    try:
        sha256_of_json(value)  # no dates, no nan
    except (TypeError, ValueError):
        return False
    return True


def _is_hash(value: str) -> bool:
    algorithm, _, digits = value.partition(":")
    if algorithm not in hashlib.algorithms_guaranteed or algorithm.startswith("shake"):
        return False
    length = 2 * hashlib.new(algorithm, usedforsecurity=False).digest_size
    return bool(re.fullmatch(rf"[0-9a-fA-F]{{{length}}}", digits))


_KEYS = {
    "title": Key(Text, "a text"),
    "species": Key(Text, "a text"),
    "regions": Key(
        Annotated[dict[str, Count], Meta(min_length=1)], "a number of sites for each region"
    ),
    "n_stimuli": Key(Count, "a whole number", None),
    "licence": Key(Text, "a text", None),
    "citation": Key(Text, "a text", None),
    "visual_degrees": Key(Degrees, DEGREES, None),
    "stratify_on": Key(Text, "a column of the stimuli", None),
    "importer": Key(Text, " or ".join(ROLES)),
    "options": Key(
        dict[str, Any],
        "arguments of the importer: texts, numbers, true, false, lists",
        {},
        is_right=_is_json,
    ),
    "files": Key(dict[str, Any], "a table for each file"),
}
_FILE_KEYS = {
    "name": Key(
        Annotated[str, Meta(pattern=r"^[A-Za-z0-9_][A-Za-z0-9._ +-]*\Z")],
        "a file name without folders",
    ),
    "url": Key(
        Annotated[str, Meta(pattern=r"^[Hh][Tt][Tt][Pp][Ss]?://[^/?#:\s]")],
        "an http or https address",
    ),
    "hash": Key(str, "algorithm:digits, such as sha256: and 64 hex digits", is_right=_is_hash),
    "about_bytes": Key(Count, "a whole number", None),
}
