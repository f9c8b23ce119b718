"""Finds the converter of a SPEC; quiets the frameworks that it needs."""

import logging
import urllib.error
import urllib.request
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import EntryPoint, entry_points

from nrp_converters.converted_model import ConvertedModel
from nrp_converters.request import Converter, Request
from nrp_onnx.errors import OptionError

GROUP = "nrp_onnx.converters"


def convert_spec(spec: str, request: Request) -> ConvertedModel:
    """Convert what SPEC names; the result is not yet compared with its source.

    Raises:
        OptionError: if no converter has that prefix.
        NrpOnnxError: whatever the converter finds wrong.
    """
    prefix, colon, name = spec.partition(":")
    known: dict[str, EntryPoint] = {point.name: point for point in entry_points(group=GROUP)}
    if not colon or not name or prefix not in known:
        raise OptionError(
            "this names no model",
            where="SPEC",
            expected=f"KIND:NAME with KIND one of {', '.join(sorted(known))}",
            found=repr(spec),
            fix="For an ONNX file write onnx:FILE.",
        )
    if request.signature is not None and prefix != "saved_model":
        raise OptionError(
            "only a SavedModel has signatures",
            where=spec,
            expected="no --signature",
            found=repr(request.signature),
        )
    converter: Converter = known[prefix].load()
    return converter(name, request)


_SECONDS = 10


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
