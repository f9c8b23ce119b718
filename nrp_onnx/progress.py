"""Progress bars on stderr, or none where a caller wants silence."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

_SHOWN = ContextVar("nrp_onnx.progress", default=True)


@contextmanager
def shown_progress(shown: bool) -> Iterator[None]:
    """Show bars while the block runs, or none."""
    token = _SHOWN.set(shown)
    try:
        yield
    finally:
        _SHOWN.reset(token)


@contextmanager
def progress_bar(description: str, total: int, done: int = 0) -> Iterator[Callable[[int], None]]:
    """Show a bar on stderr while the block runs.

    Args:
        done: how many steps of ``total`` were made before.

    Yields:
        A function that advances the bar by the number of steps it is given; any thread may call it.
    """
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        disable=not _SHOWN.get(),
    ) as bar:
        task = bar.add_task(description, total=total, completed=done)
        yield lambda steps: bar.advance(task, steps)


class DownloadBar:
    """A bar of bytes on stderr.

    Args:
        description: what is downloaded.
        start: how many bytes are there already.
        total: how many bytes there will be; None if that is not known.
    """

    def __init__(self, description: str, start: int, total: int | None) -> None:
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            disable=not _SHOWN.get(),
        )
        self._task = self._bar.add_task(description, total=total, completed=start)

    def __enter__(self) -> "DownloadBar":
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def advance(self, n_bytes: int) -> None:
        self._bar.advance(self._task, n_bytes)
