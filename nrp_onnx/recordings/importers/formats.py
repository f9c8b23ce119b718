"""The formats that can be imported, and which of them a path has."""

import inspect
from collections.abc import Mapping
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from nrp_onnx.errors import OptionError, RecordingsError
from nrp_onnx.notes import Notes
from nrp_onnx.recordings.importers.importer import Importer

GROUP = "nrp_onnx.importers"


def find_importers(notes: Notes) -> dict[str, Importer]:
    """All importers by name, those of this package first.

    A plug-in that does not load, or whose name is taken, is left out with a note.
    """
    found: dict[str, Importer] = {}
    points = sorted(
        entry_points(group=GROUP),
        key=lambda point: (not point.value.startswith("nrp_onnx."), point.name),
    )
    for point in points:
        source = f"the plug-in {point.name} of {point.dist.name if point.dist else point.value}"
        try:
            importer = point.load()
        except Exception as error:  # whatever its code raises
            notes.say(f"{source} is left out: {type(error).__name__}: {error}")
            continue
        if not isinstance(importer, Importer):
            notes.say(f"{source} is left out: it is no Importer, but {type(importer).__name__}")
        elif importer.name in found:
            notes.say(f"{source} is left out: there is an importer of that name already")
        else:
            found[importer.name] = importer
    return found


def choose_importer(path: Path, chosen: str | None, notes: Notes) -> Importer:
    """The importer of a name, or the only one that recognises a path.

    Raises:
        OptionError: if there is none of that name, or two recognise the path.
        RecordingsError: if none recognises the path, or there is nothing.
    """
    importers = find_importers(notes)
    if chosen is not None:
        if chosen not in importers:
            raise OptionError(
                "there is no such format",
                where="--format",
                expected=" or ".join(importers),
                found=chosen,
            )
        return importers[chosen]
    check_there(path)
    detected = {
        name: reason
        for name, importer in importers.items()
        if (reason := importer.detect(path)) is not None
    }
    if len(detected) > 1:
        raise OptionError(
            "this may be of several formats",
            where=path,
            expected="one",
            found="; ".join(f"{name} ({reason})" for name, reason in detected.items()),
            fix=f"Choose one, as --format {next(iter(detected))}.",
        )
    if not detected:
        raise RecordingsError(
            "this is of no known format",
            where=path,
            expected="; ".join(f"{name}: {i.looks_for}" for name, i in importers.items()),
            found="a folder" if path.is_dir() else f"a file {path.suffix!r}",
            fix="Name the axes of an array with --axes, or choose a format with --format.",
        )
    ((name, reason),) = detected.items()
    notes.say(f"{path} is read as {name}: {reason}")
    return importers[name]


def check_there(path: Path) -> None:
    """Refuse a path where nothing is.

    Raises:
        RecordingsError: which names it.
    """
    if not path.exists():
        raise RecordingsError(
            "there is nothing to import", where=path, expected="a file or a folder", found="nothing"
        )


def check_options(importer: Importer, options: Mapping[str, Any], path: Path) -> None:
    """Refuse options that a format does not have, and name those that it needs.

    Raises:
        OptionError: in either case.
    """
    known = {
        name: parameter.default is inspect.Parameter.empty
        for name, parameter in inspect.signature(importer.read).parameters.items()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY
    }
    if extra := [name for name in options if name not in known]:
        raise OptionError(
            f"these do not go with the format {importer.name}",
            where=", ".join(map(_option, extra)),
            expected=f"only {', '.join(map(_option, sorted(known)))}" if known else "none",
        )
    if missing := [name for name, needed in known.items() if needed and name not in options]:
        raise OptionError(
            f"the format {importer.name} needs more than {path.name}",
            where=", ".join(map(_option, missing)),
            expected=" ".join(_option(name) for name, needed in known.items() if needed),
            found=", ".join(map(_option, options)) or "none",
        )


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"
