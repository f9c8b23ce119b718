"""Downloads a file that is whole and has its hash, or is not there; goes on where it stopped.

NAME is there only when its hash is right. Until then its first bytes are in .NAME.part, which the
next attempt continues where the server supports that.
"""

import hashlib
import ssl
from http import HTTPStatus
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import IO
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from nrp_onnx.progress import DownloadBar
from nrp_onnx.recordings.registry_entry import PublicFile

_CHUNK = 64 * 1024
#: Seconds without a byte, after which the server counts as gone.
_PATIENCE = 30
# Of a compressed answer neither ranges nor lengths are those of the file.
_HEADERS = {"Accept-Encoding": "identity", "User-Agent": "nrp-onnx"}


class DownloadError(Exception):
    """No file, and why; the arguments are those of `NrpOnnxError`."""

    def __init__(
        self, what: str, *, found: object, expected: object = None, fix: str = "Try again later."
    ) -> None:
        super().__init__(what)
        self.what, self.found, self.expected, self.fix = what, found, expected, fix


def has_its_hash(path: Path, file: PublicFile) -> bool:
    """Whether the bytes of ``path`` are those that the registry means."""
    return _hash_of(path, file) == file.hash.lower()


def download(file: PublicFile, folder: Path) -> None:
    """Bring ``file`` into ``folder``, which no other process may download into.

    Raises:
        DownloadError: if the server cannot be reached, has no such file, breaks off, or sends
            other bytes.
    """
    part = folder / f".{file.name}.part"
    try:
        resumed = part.exists()
        if not resumed or not has_its_hash(part, file):
            _fill(part, file)
        if resumed and not has_its_hash(part, file):
            # The first bytes may be those of another version of the file.
            part.unlink()
            _fill(part, file)
        if not has_its_hash(part, file):
            found, size = _hash_of(part, file), part.stat().st_size
            part.unlink()
            raise DownloadError(
                "the download has a wrong hash, so it was deleted",
                expected=file.hash,
                found=f"{found} ({size} bytes)",
                fix="Try again; if it stays so, the file or the registry has changed.",
            )
        part.replace(folder / file.name)
    finally:
        if part.exists() and part.stat().st_size == 0:
            part.unlink()


def _hash_of(path: Path, file: PublicFile) -> str:
    algorithm = file.hash.split(":")[0]
    with path.open("rb") as content:
        return f"{algorithm}:{hashlib.file_digest(content, algorithm).hexdigest()}"


def _fill(part: Path, file: PublicFile) -> None:
    """Download into ``part``, from its end on where the server can do that."""
    with part.open("ab") as target:
        start = target.tell()
        request = Request(file.url, headers=_HEADERS)
        if start:
            request.add_header("Range", f"bytes={start}-")
        try:
            answer = urlopen(request, timeout=_PATIENCE)
        except HTTPError as error:
            error.close()
            if error.code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
                return  # there is as much as the file has, or more: its hash is wrong
            raise DownloadError(
                "the server does not give this file",
                found=f"HTTP status {error.code} {error.reason}".strip(),
            ) from None
        except (OSError, HTTPException) as error:
            raise DownloadError(
                "there is no way to the server",
                found=_in_brief(error),
                fix="Try again with a network.",
            ) from None
        with answer:
            _copy(answer, target, file, start)


def _copy(answer: HTTPResponse, target: IO[bytes], file: PublicFile, start: int) -> None:
    """Append the bytes of an answer, behind ``start`` or, where the server cannot do that, anew."""
    begin = answer.headers.get("Content-Range", "")
    if answer.status != HTTPStatus.PARTIAL_CONTENT or not begin.startswith(f"bytes {start}-"):
        start = 0
        target.truncate(0)  # in append mode the next byte goes to the end
    length = int(answer.headers.get("Content-Length", 0))
    expected = start + length if length else None
    done, broken = start, False
    with DownloadBar(file.name, done, expected) as bar:
        try:
            while block := answer.read(_CHUNK):
                target.write(block)
                bar.advance(len(block))
                done += len(block)
        except (TimeoutError, ConnectionError, ssl.SSLError, HTTPException):
            broken = True
    if broken or (expected is not None and done < expected):
        raise DownloadError(
            "the download broke off",
            expected="the whole file" if expected is None else f"{expected} bytes",
            found=f"{done} bytes",
            fix="Run it again: it goes on from there if the server can.",
        )


def _in_brief(error: Exception) -> str:
    """The reason, without the wrapping of urllib."""
    return str(getattr(error, "reason", error))
