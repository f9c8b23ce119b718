"""recordings.json: what the tables of a recordings folder do not say."""

import json
from pathlib import Path
from typing import Any, Literal

from nrp_onnx.errors import RecordingsError
from nrp_onnx.file_schema import Key, Text, checked_table, read_key
from nrp_onnx.files import write_json
from nrp_onnx.recordings.checks import Report
from nrp_onnx.recordings.recordings import DEGREES, Degrees, Recordings

FORMAT_VERSION = 1

_KEYS = {
    "format_version": Key(Literal[FORMAT_VERSION], str(FORMAT_VERSION)),
    "name": Key(Text, "a text"),
    "units": Key(Text, "a text"),
    "normalised": Key(bool, "true or false"),
    "simulated": Key(bool, "true or false"),
    "time_window_ms": Key(
        tuple[float, float],
        "two rising numbers, or null",
        None,
        is_right=lambda window: window[0] < window[1],
    ),
    "visual_degrees": Key(Degrees, f"{DEGREES}, or null", None),
    "stratify_on": Key(Text, "a column of stimuli.csv, or null", None),
    "licence": Key(Text, "a text or null", None),
    "citation": Key(Text, "a text or null", None),
    "provenance": Key(dict[str, Any], "an object or null", None),
}


def write_facts(path: Path, recordings: Recordings) -> None:
    """Write recordings.json."""
    facts = {name: getattr(recordings, name) for name in _KEYS if name != "format_version"}
    write_json(path, {"format_version": FORMAT_VERSION, **facts})


def read_facts(path: Path, report: Report) -> dict[str, Any] | None:
    """Read recordings.json as keyword arguments of `Recordings`; None if it cannot be used."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        facts = checked_table(content, _KEYS, path, RecordingsError)
    except FileNotFoundError:
        report(RecordingsError("no such file", where=path, expected=", ".join(_KEYS)))
        return None
    except ValueError as error:
        report(RecordingsError("this is no JSON", where=path, found=error))
        return None
    except RecordingsError as problem:
        report(problem)
        return None
    known: dict[str, Any] = {}
    for name in _KEYS:
        try:
            known[name] = read_key(facts, name, _KEYS, path, RecordingsError)
        except RecordingsError as problem:
            report(problem)
    if len(known) < len(_KEYS):
        return None
    del known["format_version"]
    return known | {"provenance": known["provenance"] or {}}
