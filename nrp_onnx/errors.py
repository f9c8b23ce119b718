"""The one exception family: every error that a user can cause and mend."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

#: Options of the command line, as ``--skip-bad-stimuli`` or ``-o``.
_OPTION = re.compile(r"(?<![\w-])(?:--([a-z][a-z0-9-]*)|-o\b)")
#: Arguments of Python that are not the option with underscores and ``=``.
_ARGUMENTS = {
    "overwrite": "overwrite=True",
    "recordings": "recordings",
    "region": "regions=",
    "skip_bad_stimuli": "skip_bad_stimuli=True",
}


class NrpOnnxError(Exception):
    """An error with all that a user needs to mend it, in one line.

    Args:
        what: what is wrong, as a short clause.
        where: the file, option or object that it is about.
        expected: what would have been right.
        found: what was there instead.
        fix: what to do, as a sentence in the imperative.
    """

    def __init__(
        self,
        what: str,
        *,
        where: object = None,
        expected: object = None,
        found: object = None,
        fix: str | None = None,
    ) -> None:
        self.what, self.where, self.expected, self.found, self.fix = (
            what,
            where,
            expected,
            found,
            fix,
        )
        text = f"{where}: {what}" if where is not None else what
        if expected is not None:
            text += f"; expected {expected}"
        if found is not None:
            text += f"; found {found}"
        if fix is not None:
            text += f". {fix}"
        super().__init__(" ".join(text.split()))


@contextmanager
def words_of_python() -> Iterator[None]:
    """Let errors of the block name arguments of Python where they name options: ``folds=``.

    Example:
        >>> with words_of_python():
        ...     raise OptionError("this number of folds does not fit", where="--folds", found=1)
        Traceback (most recent call last):
        nrp_onnx.errors.OptionError: folds=: this number of folds does not fit; found 1
    """
    try:
        yield
    except NrpOnnxError as error:
        error.args = (_OPTION.sub(_argument, str(error)),)
        raise


def _argument(option: re.Match[str]) -> str:
    name = (option.group(1) or "out").replace("-", "_")
    return _ARGUMENTS.get(name, f"{name}=")


class ModelError(NrpOnnxError):
    """A backbone that cannot be read, rewritten or run."""


class RecordingsError(NrpOnnxError):
    """Neural recordings or stimuli that cannot be used."""


class OptionError(NrpOnnxError):
    """An option whose value makes no sense, alone or beside the inputs."""


class OutputError(NrpOnnxError):
    """A place that results cannot be written to."""


class RunError(NrpOnnxError):
    """The folder of a run that cannot be read, or compared with another."""


class DeviceError(NrpOnnxError):
    """A device or execution provider that is asked for and does not work."""


class EngineError(NrpOnnxError):
    """A cluster that cannot be reached, or that cannot run the tasks it was given."""
