"""Finds the converter that a SPEC names, such as torch:file.py:factory or keras:ResNet50."""

from importlib.metadata import EntryPoint, entry_points

from nrp_onnx.converters.converted_model import ConvertedModel
from nrp_onnx.converters.request import Converter, Request
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
    converter: Converter = known[prefix].load()
    return converter(name, request)
