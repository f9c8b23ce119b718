"""How large images were shown: their width in degrees of the visual field."""

from typing import Any

from nrp_onnx.errors import OptionError

DEGREES = "degrees, over 0 and at most 180"


def is_degrees(value: Any) -> bool:
    """Whether this is a number that an image can fill."""
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value <= 180


def check_degrees(value: float | None) -> None:
    """Refuse what is neither None nor `is_degrees`.

    Raises:
        OptionError: which names ``--visual-degrees``.
    """
    if value is not None and not is_degrees(value):
        raise OptionError(
            "no image is that large", where="--visual-degrees", expected=DEGREES, found=value
        )
