"""Frameworks that are only used when a model of theirs is asked for: their import, their chatter."""

import importlib
import logging
import urllib.error
import urllib.request
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

from nrp_onnx.errors import OptionError

_SECONDS = 10


def imported(package: str, fix: str) -> ModuleType:
    """Import a framework's package.

    Args:
        fix: what to install, as a sentence.

    Raises:
        OptionError: if that fails, for whatever reason.
    """
    try:
        return importlib.import_module(package)
    except Exception as error:  # a missing package, or a compiled one that does not fit torch
        reason = str(error).strip().partition("\n")[0] or "no message"
        raise OptionError(
            f"this needs the package {package}, which cannot be imported",
            found=f"{type(error).__name__}: {reason}",
            fix=fix,
        ) from error


def reachable(url: str) -> bool:
    """Whether a server answers at all; asked once, where a client would try again for a minute."""
    try:
        urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=_SECONDS).close()
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False
    return True


@contextmanager
def quiet() -> Iterator[None]:
    """Without warnings and log messages of frameworks about their own insides: what fails raises,
    and the error says what a user can act on."""
    disabled = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
