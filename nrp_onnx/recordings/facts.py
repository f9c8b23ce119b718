"""recordings.json: what the tables of a recordings folder do not say."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from nrp_onnx.errors import RecordingsError
from nrp_onnx.files import write_json
from nrp_onnx.recordings.checks import Report
from nrp_onnx.recordings.recordings import DEGREES, Recordings, is_degrees

FORMAT_VERSION = 1


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value)


def _is_window(value: Any) -> bool:
    return (
        isinstance(value, list)
        and len(value) == 2
        and all(isinstance(end, int | float) and not isinstance(end, bool) for end in value)
        and value[0] < value[1]
    )


def _or_null(test: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: value is None or test(value)


def _is_flag(value: Any) -> bool:
    return isinstance(value, bool)


#: Each entry's test and what it expects. Those that may be null may also be left out.
_ENTRIES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "format_version": (lambda value: value == FORMAT_VERSION, str(FORMAT_VERSION)),
    "name": (_is_text, "a text"),
    "units": (_is_text, "a text"),
    "normalised": (_is_flag, "true or false"),
    "simulated": (_is_flag, "true or false"),
    "time_window_ms": (_or_null(_is_window), "two rising numbers, or null"),
    "visual_degrees": (_or_null(is_degrees), f"{DEGREES}, or null"),
    "stratify_on": (_or_null(_is_text), "a column of stimuli.csv, or null"),
    "licence": (_or_null(_is_text), "a text or null"),
    "citation": (_or_null(_is_text), "a text or null"),
    "provenance": (_or_null(lambda value: isinstance(value, dict)), "an object or null"),
}


def write_facts(path: Path, recordings: Recordings) -> None:
    """Write recordings.json."""
    facts = {name: getattr(recordings, name) for name in _ENTRIES if name != "format_version"}
    write_json(path, {"format_version": FORMAT_VERSION, **facts})


def read_facts(path: Path, report: Report) -> dict[str, Any] | None:
    """Read recordings.json as keyword arguments of `Recordings`; None if it cannot be used."""
    if not path.is_file():
        report(RecordingsError("no such file", where=path, expected=", ".join(_ENTRIES)))
        return None
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        report(RecordingsError("this is no JSON", where=path, found=error))
        return None
    if not isinstance(facts, dict):
        report(
            RecordingsError(
                "this does not describe recordings",
                where=path,
                expected="a JSON object",
                found=type(facts).__name__,
            )
        )
        return None
    problems = [
        RecordingsError(
            f"the entry {name} is {'wrong' if name in facts else 'missing'}",
            where=path,
            expected=expected,
            found=json.dumps(facts[name]) if name in facts else "nothing",
        )
        for name, (is_right, expected) in _ENTRIES.items()
        if not is_right(facts.get(name))
    ]
    for problem in problems:
        report(problem)
    if problems:
        return None
    known = {name: facts.get(name) for name in _ENTRIES if name != "format_version"}
    window = known["time_window_ms"]
    known["time_window_ms"] = None if window is None else (float(window[0]), float(window[1]))
    degrees = known["visual_degrees"]
    known["visual_degrees"] = None if degrees is None else float(degrees)
    known["provenance"] = known["provenance"] or {}
    return known
