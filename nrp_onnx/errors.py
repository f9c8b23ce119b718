"""The one exception family: every error that a user can cause and mend."""


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
