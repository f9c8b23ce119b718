"""The command line in this process: what `nrp-onnx convert ...` prints and how it exits."""

import io
import logging
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass

import pytest

from nrp_onnx.cli import app


@dataclass
class Finished:
    returncode: int
    stdout: str
    stderr: str


def convert_command(*arguments: object) -> Finished:
    """Run ``nrp-onnx convert`` without the seconds that a new process takes to import torch."""
    logger = logging.getLogger("nrp_onnx")
    handlers, propagate, argv = list(logger.handlers), logger.propagate, sys.argv
    sys.argv = ["nrp-onnx", "convert", *map(str, arguments)]
    out, err = io.StringIO(), io.StringIO()
    try:
        with redirect_stdout(out), redirect_stderr(err), pytest.raises(SystemExit) as left:
            app.main()
    finally:
        sys.argv, logger.handlers, logger.propagate = argv, handlers, propagate
    assert isinstance(left.value.code, int)
    return Finished(left.value.code, out.getvalue(), err.getvalue())


def assert_one_line_error(finished: Finished, *parts: object) -> None:
    """Exit code 2 and one line of error that has all parts; nothing else but notes."""
    lines = [line for line in finished.stderr.splitlines() if not line.startswith("note: ")]
    assert finished.returncode == 2, finished.stderr
    assert len(lines) == 1, finished.stderr
    assert lines[0].startswith("error: ")
    for part in parts:
        assert str(part) in lines[0]
