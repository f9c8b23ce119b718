"""Folders of activations on other file systems, named by a URI: s3://, gs://, hdfs:// and the like."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import pyarrow as pa
from pyarrow import fs

from nrp_onnx.errors import OptionError

_BYTES_AT_A_TIME = 2**23


@dataclass(frozen=True)
class RemoteFile:
    """A file on another file system; its text is the URI without account, key and options."""

    uri: str

    def __str__(self) -> str:
        parts = urlsplit(self.uri)
        return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))

    @property
    def name(self) -> str:
        """The last part of its path."""
        return urlsplit(self.uri).path.rpartition("/")[2]

    def is_file(self) -> bool:
        """Whether it is there.

        Raises:
            OSError: if the file system does not answer.
        """
        system, path = _opened(self.uri)
        return bool(system.get_file_info(path).type == fs.FileType.File)

    def open(self) -> pa.NativeFile:
        """Open it for reading anywhere in it."""
        system, path = _opened(self.uri)
        return system.open_input_file(path)

    def upload(self, local: Path) -> None:
        """Copy a local file here. Object stores show it when it is whole, and not before."""
        system, path = _opened(self.uri)
        with local.open("rb") as source, system.open_output_stream(path) as target:
            shutil.copyfileobj(source, target, _BYTES_AT_A_TIME)

    def download(self, local: Path) -> None:
        """Copy it to a local file."""
        local.parent.mkdir(parents=True, exist_ok=True)
        with self.open() as source, local.open("wb") as target:
            shutil.copyfileobj(source, target, _BYTES_AT_A_TIME)


@dataclass(frozen=True)
class RemoteFolder:
    """A folder on another file system.

    Args:
        uri: what PyArrow or fsspec opens, with their options after ``?``.
    """

    uri: str

    def __str__(self) -> str:
        return str(RemoteFile(self.uri)).rstrip("/")

    def __truediv__(self, name: str) -> RemoteFile:
        parts = urlsplit(self.uri)
        return RemoteFile(urlunsplit(parts._replace(path=f"{parts.path.rstrip('/')}/{name}")))

    def make(self) -> None:
        """Make it where file systems have folders.

        Raises:
            OSError: if the file system does not answer.
        """
        system, path = _opened(self.uri)
        system.create_dir(path, recursive=True)


def folder_of(name: str | Path) -> Path | RemoteFolder:
    """A folder by its path or URI.

    Raises:
        OptionError: if no file system has such URIs.
    """
    text = str(name)
    if isinstance(name, Path) or "://" not in text:
        return Path(name)
    if text.startswith("file://"):
        return Path(urlsplit(text).path)
    _opened(text)
    return RemoteFolder(text)


def _opened(uri: str) -> tuple[Any, str]:
    """The file system, and the path in it. Both PyArrow and fsspec keep connections."""
    try:
        system, path = fs.FileSystem.from_uri(uri)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        reason: Exception = error
    else:
        return system, path
    try:
        import fsspec

        system, path = fsspec.core.url_to_fs(uri)
    except (ImportError, ValueError):
        raise OptionError(
            "no file system has such addresses",
            where=str(RemoteFile(uri)),
            expected="a path, or a URI that PyArrow or fsspec opens (s3://bucket/folder, ...)",
            found=str(reason).split(". ")[0],
        ) from None
    return fs.PyFileSystem(fs.FSSpecHandler(system)), path
