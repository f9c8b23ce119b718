"""The command line: each command is a thin call of the library; errors are one line and exit 2."""

import errno
import logging
import os
import sys
import traceback
from typing import Annotated

import typer

from nrp_onnx.cli.convert import convert_command, prune_command
from nrp_onnx.cli.export import export_command
from nrp_onnx.cli.extract import doctor_command, extract_command
from nrp_onnx.cli.predict import predict_command
from nrp_onnx.cli.recordings import recordings_app
from nrp_onnx.cli.report import compare_command, report_command
from nrp_onnx.cli.score import demo_command, layers_command, score_command
from nrp_onnx.cli.show import show_command
from nrp_onnx.cli.study import study_app
from nrp_onnx.errors import NrpOnnxError

#: Set to 1 for the traceback of an error.
DEBUG_VARIABLE = "NRP_ONNX_DEBUG"

#: What a user can mend: a path that is wrong, a place that is closed or full.
_USERS_FAULT = {
    errno.EACCES, errno.EDQUOT, errno.EEXIST, errno.EFBIG, errno.EISDIR, errno.ELOOP,
    errno.EMFILE, errno.ENAMETOOLONG, errno.ENOENT, errno.ENOSPC, errno.ENOTDIR, errno.ENOTEMPTY,
    errno.EPERM, errno.EROFS,
}  # fmt: skip

app = typer.Typer(
    name="nrp-onnx",
    help="How brain-like is an image model? The NRP-error of ONNX backbones.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.command("score")(score_command)
app.command("layers")(layers_command)
app.command("predict")(predict_command)
app.command("show")(show_command)
app.command("export")(export_command)
app.command("demo")(demo_command)
app.add_typer(recordings_app, name="recordings")
app.add_typer(study_app, name="study")
app.command("convert")(convert_command)
app.command("extract")(extract_command)
app.command("doctor")(doctor_command)
app.command("report")(report_command)
app.command("prune")(prune_command)
app.command("compare")(compare_command)


def _print_version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        print(f"nrp-onnx {version('nrp-onnx')}")
        raise typer.Exit


@app.callback()
def options_of_all(
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version.", callback=_print_version, is_eager=True
        ),
    ] = False,
) -> None:
    """How brain-like is an image model? The NRP-error of ONNX backbones."""


def main() -> None:
    """Run the command line.

    A user's error is one line on stderr and exit code 2; any other is one line and exit code 1.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("note: %(message)s"))
    logger = logging.getLogger("nrp_onnx")
    logger.addHandler(handler)
    logger.propagate = False
    try:
        code = app(standalone_mode=False)
    except NrpOnnxError as error:
        sys.exit(_failed(str(error)))
    except typer.TyperException as error:  # a wrong option or argument
        sys.exit(_failed(error.format_message()))
    except (KeyboardInterrupt, typer.Abort):
        sys.exit(130)
    except Exception as error:
        if isinstance(error, OSError) and error.errno in _USERS_FAULT:
            sys.exit(_failed(f"{error.filename or 'file system'}: {error.strerror or error}"))
        what = f"unexpected {type(error).__name__}: {error}"
        sys.exit(
            _failed(f"{what}. Please report it, with the output of {DEBUG_VARIABLE}=1.", code=1)
        )
    sys.exit(code if isinstance(code, int) else 0)


def _failed(message: str, code: int = 2) -> int:
    """Print one line; call it where an error is being handled."""
    if os.environ.get(DEBUG_VARIABLE) == "1":
        traceback.print_exc()
    print("error: " + " ".join(message.split()), file=sys.stderr)
    return code
