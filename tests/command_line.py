"""The command line: in this process, or as a process of its own where that is the point."""

import io
import logging
import os
import subprocess
import sys
import traceback
from contextlib import chdir, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

from nrp_onnx.cli import app

#: Tables are not broken into lines as narrow as a terminal's.
_ENVIRONMENT = {"COLUMNS": "140"}


@dataclass(frozen=True)
class Finished:
    """What a command printed, and how it ended."""

    returncode: int
    stdout: str
    stderr: str


def nrp_onnx(*arguments: object, cwd: Path | None = None) -> Finished:
    """Run a command in this process, without the seconds that a new one takes for its imports.

    The working folder, the environment and the handlers of the log are afterwards as they were. An
    exception that the command line does not catch is a traceback and the exit code 1, as in a process.
    """
    logger = logging.getLogger("nrp_onnx")
    handlers, propagate = list(logger.handlers), logger.propagate
    out, err = io.StringIO(), io.StringIO()
    try:
        with (
            mock.patch.dict(os.environ, _ENVIRONMENT),
            mock.patch.object(sys, "argv", ["nrp-onnx", *map(str, arguments)]),
            mock.patch.object(sys, "path", list(sys.path)),
            chdir(cwd or Path.cwd()),
            redirect_stdout(out),
            redirect_stderr(err),
        ):
            code = _exit_code()
    finally:
        logger.handlers, logger.propagate = handlers, propagate
    return Finished(code, out.getvalue(), err.getvalue())


def _exit_code() -> int:
    try:
        app.main()
    except SystemExit as end:
        return int(end.code or 0)
    except Exception:
        traceback.print_exc()
        return 1
    raise AssertionError("main returned without an exit code")


def nrp_onnx_process(*arguments: object, cwd: Path | None = None) -> Finished:
    """Run a command in a process of its own, as a user does."""
    run = subprocess.run(
        [sys.executable, "-m", "nrp_onnx", *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=cwd,
        env=os.environ | _ENVIRONMENT,
        check=False,
        timeout=600,
    )
    return Finished(run.returncode, run.stdout, run.stderr)


def assert_user_error(run: Finished | subprocess.CompletedProcess[str], *parts: object) -> None:
    """Exit code 2, one line of error that has all parts, no traceback."""
    errors = [line for line in run.stderr.splitlines() if line.startswith("error: ")]
    assert run.returncode == 2, run.stderr
    assert "Traceback" not in run.stderr
    assert len(errors) == 1, run.stderr
    for part in parts:
        assert str(part) in errors[0]


def convert_command(*arguments: object) -> Finished:
    """Run ``nrp-onnx convert`` in this process."""
    return nrp_onnx("convert", *arguments)


def assert_one_line_error(run: Finished, *parts: object) -> None:
    """Exit code 2 and one line of error that has all parts; nothing else but notes."""
    lines = [line for line in run.stderr.splitlines() if not line.startswith("note: ")]
    assert len(lines) == 1, run.stderr
    assert_user_error(run, *parts)
