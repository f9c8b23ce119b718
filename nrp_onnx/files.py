"""Files that are either whole or not there: written beside their place, then renamed."""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from nrp_onnx.errors import ModelError, OutputError

#: How the names of files and folders end that are not whole; a killed process leaves them.
UNFINISHED = ".part"
#: Held by the process that works in a folder.
LOCK = ".lock"


@contextmanager
def locked_folder(folder: Path, if_held: str) -> Iterator[None]:
    """Make a folder, and keep other processes out of it while the block runs.

    Args:
        if_held: what the second process is told.

    Raises:
        OutputError: if another process is in it.
    """
    from filelock import FileLock, Timeout  # takes a twentieth of a second

    folder.mkdir(parents=True, exist_ok=True)
    try:
        held = FileLock(folder / LOCK).acquire(blocking=False)
    except Timeout:
        raise OutputError(
            if_held,
            where=folder,
            fix="Wait for it, or choose another folder with -o.",
        ) from None
    with held:
        yield


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; it takes the place of ``path`` if the block succeeds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}{UNFINISHED}")
    try:
        yield part
        with part.open("rb") as file:
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder beside ``path`` that becomes ``path`` if the block succeeds.

    ``path`` must not exist, or be an empty folder.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=UNFINISHED, dir=path.parent))
    part.chmod(0o755)
    try:
        yield part
        if path.is_dir():
            path.rmdir()
        part.replace(path)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def check_model_file(path: Path) -> None:
    """Refuse the path of a model that is not there; no package is imported for that.

    Raises:
        ModelError: if there is no file.
    """
    if not path.is_file():
        raise ModelError(
            "no such model file",
            where=path,
            expected="an .onnx file",
            found="a folder" if path.is_dir() else "nothing",
        )


def exported_file(path: Path, name: str) -> Path:
    """The file of an exported model: a file as it is, or ``name`` in the folder of a run.

    No package is imported for that.

    Raises:
        ModelError: if there is no such file, or none of that name in the folder.
    """
    if not path.is_dir():
        check_model_file(path)
        return path
    if not (path / name).is_file():
        raise ModelError(
            f"the folder has no {name}",
            where=path,
            expected=f"the folder of a finished run, or the path of a {name}",
            found="none",
            fix="Give what nrp-onnx score wrote to.",
        )
    return path / name


def safe_name(text: str) -> str:
    """``text`` as the name of a file: letters, digits and ``._-``; a dash for anything else."""
    return "".join(char if char.isalnum() or char in "._-" else "-" for char in text)


def write_json(path: Path, content: Any) -> None:
    """Write ``content`` as indented UTF-8 JSON; NaN is refused (JSON has none)."""
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)
    with whole_file(path) as part:
        part.write_text(text + "\n", encoding="utf-8")


def sha256_of_file(path: Path) -> str:
    """SHA-256 of a file's bytes, as 64 hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_of_json(content: Any) -> str:
    """SHA-256 of ``content`` as canonical JSON: equal content, equal digest."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()
