"""Downloads a file that is whole and has its hash, or is not there; goes on where it stopped.

NAME is there only when its hash is right. Until then its first bytes are in .NAME.part, which the
next attempt continues where the server supports that.
"""

from pathlib import Path
from typing import IO, Any

from nrp_onnx.progress import DownloadBar
from nrp_onnx.recordings.registry_entry import PublicFile

_CHUNK = 64 * 1024
#: Seconds without a byte, after which the server counts as gone.
_PATIENCE = 30


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
    import pooch

    algorithm = file.hash.split(":")[0]
    return f"{algorithm}:{pooch.file_hash(str(path), alg=algorithm)}"


def _fill(part: Path, file: PublicFile) -> None:
    """Download into ``part``, from its end on where the server can do that."""
    import pooch
    import requests

    with part.open("ab") as target, DownloadBar(file.name, target.tell()) as bar:
        answer = _Answer(target, bar)
        downloader = pooch.HTTPDownloader(
            progressbar=bar,
            chunk_size=_CHUNK,
            timeout=_PATIENCE,
            headers=answer.headers,
            hooks={"response": answer.place},
        )
        try:
            downloader(file.url, target, None)
            broken: object = None
        except requests.HTTPError:
            status, reason = answer.status
            if status == requests.codes.requested_range_not_satisfiable:
                return  # there is as much as the file has, or more: its hash is wrong
            raise DownloadError(
                "the server does not give this file",
                found=f"HTTP status {status} {reason}".strip(),
            ) from None
        except requests.RequestException as error:
            if answer.expected is None:
                raise DownloadError(
                    "there is no way to the server",
                    found=_in_brief(error),
                    fix="Try again with a network.",
                ) from None
            broken = _in_brief(error)
    size, expected = part.stat().st_size, answer.expected or 0
    if broken or size < expected:
        raise DownloadError(
            "the download broke off",
            expected=f"{expected} bytes" if expected else "the whole file",
            found=f"{size} bytes",
            fix="Run it again: it goes on from there if the server can.",
        )


class _Answer:
    """Puts an answer of the server at its place in the file: at the end, or at the beginning."""

    def __init__(self, target: IO[bytes], bar: DownloadBar) -> None:
        self._target, self._bar, self._start = target, bar, target.tell()
        self.expected: int | None = None
        self.status = (0, "")
        # Of a compressed answer neither ranges nor lengths are those of the file.
        self.headers = {"Accept-Encoding": "identity"}
        if self._start:
            self.headers["Range"] = f"bytes={self._start}-"

    def place(self, response: Any, **_: Any) -> None:
        """Called with each answer, redirections too, before its bytes are read."""
        self.status = response.status_code, response.reason or ""
        if response.status_code == 206:
            begin = response.headers.get("content-range", "")
            if begin.startswith(f"bytes {self._start}-"):
                self._expect(response, self._start)
                return
        if response.ok and not response.is_redirect:
            self._target.truncate(0)  # in append mode the next byte goes to the end
            self._bar.restart()
            self._expect(response, 0)

    def _expect(self, response: Any, start: int) -> None:
        self.expected = start + int(response.headers.get("content-length", 0))


def _in_brief(error: Exception) -> str:
    """The innermost reason, without the wrapping of the libraries."""
    reason: Any = error
    while (inner := getattr(reason, "reason", None) or (reason.args or [None])[0]) and isinstance(
        inner, Exception
    ):
        reason = inner
    return str(reason).split(": ", 1)[-1]
