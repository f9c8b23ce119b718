"""The registry of recordings by name: the file of this package, plug-ins, a file of the user.

A plug-in is an entry point of the group ``nrp_onnx.recordings``. It has the name of the recordings;
it is a dict with the keys of an entry (see registry.toml), or a function without arguments that
returns the path of a recordings folder.
"""

import os
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from importlib.resources import files
from pathlib import Path
from typing import Any

import platformdirs

from nrp_onnx.errors import NrpOnnxError, RecordingsError
from nrp_onnx.notes import Notes
from nrp_onnx.recordings.registry_entry import Entry, check_name, read_entry

CACHE_VARIABLE = "NRP_ONNX_CACHE"


def cache_folder() -> Path:
    """The folder of what is kept between runs; the variable NRP_ONNX_CACHE moves it."""
    chosen = os.environ.get(CACHE_VARIABLE)
    return Path(chosen).expanduser() if chosen else platformdirs.user_cache_path("nrp_onnx")


REGISTRY_VARIABLE = "NRP_ONNX_REGISTRY"
GROUP = "nrp_onnx.recordings"


@dataclass(frozen=True)
class FolderPlugin:
    """Recordings whose folder a function of an installed package returns."""

    name: str
    title: str
    source: str
    function: Callable[[], Any]

    def folder(self) -> Path:
        """Call the function.

        Raises:
            RecordingsError: if it fails, or returns no path.
        """
        try:
            return Path(self.function())
        except NrpOnnxError:
            raise
        except Exception as error:
            raise _broken(self.source, error) from None


def read_registry(notes: Notes) -> dict[str, Entry | FolderPlugin]:
    """All recordings that have a name, by name.

    A plug-in that does not load, or takes a name that this package has, is left out with a note.

    Raises:
        RecordingsError: if the file that NRP_ONNX_REGISTRY names is not right.
    """
    shipped = tomllib.loads(
        files("nrp_onnx.recordings").joinpath("registry.toml").read_text(encoding="utf-8")
    )
    sources = dict.fromkeys(shipped, "nrp_onnx")
    tables: dict[str, Any] = dict(shipped)
    folders: dict[str, FolderPlugin] = {}
    for point in entry_points(group=GROUP):
        source = f"the plug-in {point.name} of {point.dist.name if point.dist else point.value}"
        try:
            plugin = _load(point, source)
        except RecordingsError as error:
            notes.say(str(error))
            continue
        if point.name in tables or point.name in folders:
            notes.say(f"{source} is left out: there are recordings of that name already")
        elif isinstance(plugin, FolderPlugin):
            folders[point.name] = plugin
        else:
            tables[point.name], sources[point.name] = plugin, source
    for name, table in _of_user().items():
        where = os.environ[REGISTRY_VARIABLE]
        folders.pop(name, None)
        tables[name] = _merged(tables.get(name, {}), table)
        sources[name] = where
    entries = {name: read_entry(name, table, sources[name]) for name, table in tables.items()}
    return {**entries, **folders}


def _load(point: EntryPoint, source: str) -> FolderPlugin | dict[str, Any]:
    check_name(point.name, source)
    try:
        plugin = point.load()
    except Exception as error:
        raise _broken(source, error) from None
    if isinstance(plugin, dict):
        read_entry(point.name, plugin, source)  # a wrong one is left out
        return plugin
    if callable(plugin):
        lines = (plugin.__doc__ or "").strip().splitlines()
        return FolderPlugin(point.name, lines[0] if lines else "", source, plugin)
    raise RecordingsError(
        "this gives no recordings",
        where=source,
        expected="an entry of the registry as a dict, or a function that returns a folder",
        found=type(plugin).__name__,
    )


def _broken(source: str, error: Exception) -> RecordingsError:
    return RecordingsError(
        "it does not work",
        where=source,
        found=f"{type(error).__name__}: {error}",
        fix="Update or uninstall that package.",
    )


def _of_user() -> dict[str, Any]:
    """The tables of the file that NRP_ONNX_REGISTRY names; none without one."""
    chosen = os.environ.get(REGISTRY_VARIABLE)
    if not chosen:
        return {}
    path = Path(chosen).expanduser()
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise RecordingsError(
            "the registry cannot be read",
            where=path,
            expected="a TOML file",
            found=error.strerror if isinstance(error, OSError) else error,
            fix=f"Mend it, or unset {REGISTRY_VARIABLE}.",
        ) from None


def _merged(entry: Any, override: Any) -> Any:
    """``override``, and what it leaves out of the entry, of its options and of its files."""
    if not (isinstance(entry, dict) and isinstance(override, dict)):
        return override
    merged = {**entry, **override}
    for part in ("options", "files"):
        old, new = entry.get(part), override.get(part)
        if isinstance(old, dict) and isinstance(new, dict):
            merged[part] = {**old, **new}
    for role, new in override.get("files", {}).items() if isinstance(merged["files"], dict) else ():
        old = entry.get("files", {}).get(role)
        if isinstance(old, dict) and isinstance(new, dict):
            # Another hash is another file, whose size is not known.
            kept = {k: v for k, v in old.items() if "hash" not in new or k != "about_bytes"}
            merged["files"][role] = {**kept, **new}
    return merged
