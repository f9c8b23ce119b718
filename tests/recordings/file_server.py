"""A web server on this machine that serves files well or badly."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class FileServer:
    """What it serves and how; change it while it runs.

    Attributes:
        url: without a slash at the end.
        files: bytes by path, such as ``/data.zip``.
        ranges: whether it can begin at a later byte.
        stop_after: breaks the connection after that many bytes of an answer.
        hold_after: waits for ``release`` after that many bytes of an answer.
        statuses: by path, instead of the file.
        requests: path and Range header of each request.
    """

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    ranges: bool = True
    stop_after: int | None = None
    hold_after: int | None = None
    release: threading.Event = field(default_factory=threading.Event)
    statuses: dict[str, int] = field(default_factory=dict)
    requests: list[tuple[str, str | None]] = field(default_factory=list)


@contextmanager
def serve() -> Iterator[FileServer]:
    """Yield a server that runs in a thread while the block does."""
    state = FileServer()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            wanted = self.headers.get("Range")
            state.requests.append((self.path, wanted))
            if (status := state.statuses.get(self.path)) or self.path not in state.files:
                self.send_error(status or 404)
                return
            content = state.files[self.path]
            start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted else 0
            if wanted and state.ranges:
                if start >= len(content):
                    self.send_error(416)
                    return
                self.send_response(206)
                last = len(content) - 1
                self.send_header("Content-Range", f"bytes {start}-{last}/{len(content)}")
                content = content[start:]
            else:
                self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if (held := state.hold_after) is not None:
                self.wfile.write(content[:held])
                state.release.wait(60)
                content = content[held:]
            with suppress(OSError):  # the client was killed
                self.wfile.write(content[: state.stop_after])
            self.close_connection = True

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    state.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield state
    finally:
        state.release.set()
        server.shutdown()
        server.server_close()
        thread.join()
