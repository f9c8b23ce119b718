"""Reads the keys of a JSON, YAML or TOML file and says which of them is missing, wrong or unknown.

The types of the values are checked by msgspec. Its messages name a type ("Expected `int` >= 1"), so
each key brings the words that a user is told instead.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from nrp_onnx.errors import NrpOnnxError

#: The default of a key that must be there.
REQUIRED: Any = object()

#: Types that several files have.
Text = Annotated[str, Meta(pattern=r"\S")]
Count = Annotated[int, Meta(ge=1)]

_MOST_SHOWN = 200


@dataclass(frozen=True)
class Key:
    """What a key of a file may hold.

    Attributes:
        kind: the type of the value, as `msgspec.convert` takes it.
        expected: the same in words.
        default: of a key that is missing; where it is None, null means the same.
        is_right: what else the value must be.
        strict: False also takes a number that is written as a text: YAML reads 1e-3 as one.
    """

    kind: Any
    expected: str
    default: Any = REQUIRED
    is_right: Callable[[Any], bool] = lambda value: True
    strict: bool = True


def read_key(
    content: Mapping[Any, Any],
    name: str,
    keys: Mapping[str, Key],
    where: object,
    error: type[NrpOnnxError],
) -> Any:
    """The value of one key in the type of its kind, or its default.

    Raises:
        NrpOnnxError: of the given class, if the value is missing or wrong.
    """
    key, value = keys[name], content.get(name)
    if name not in content and key.default is not REQUIRED:
        return key.default
    if value is None and key.default is None:
        return None
    try:
        read = msgspec.convert(value, key.kind, strict=key.strict)
        if key.is_right(read):
            return read
    except msgspec.ValidationError:
        pass
    raise error(
        f"the key {name} is {'wrong' if name in content else 'missing'}",
        where=where,
        expected=key.expected,
        found=_shown(value) if name in content else "nothing",
    )


def read_keys(
    content: Any, keys: Mapping[str, Key], where: object, error: type[NrpOnnxError]
) -> dict[str, Any]:
    """The values of all keys.

    Raises:
        NrpOnnxError: of the given class, for the first key that is unknown, missing or wrong.
    """
    for name in checked_table(content, keys, where, error):
        if name not in keys:
            close = get_close_matches(str(name), keys, n=1)
            raise error(
                f"the key {_shown(name)} is unknown",
                where=where,
                expected=_any_of(keys),
                fix=f"Write {close[0]}, if that is meant." if close else None,
            )
    return {name: read_key(content, name, keys, where, error) for name in keys}


def checked_table(
    content: Any, keys: Mapping[str, Key], where: object, error: type[NrpOnnxError]
) -> Mapping[Any, Any]:
    """``content``, if it is a table of keys at all.

    Raises:
        NrpOnnxError: of the given class, if it is not.
    """
    if isinstance(content, Mapping):
        return content
    found = "nothing" if content is None else type(content).__name__
    raise error("this is no table of keys", where=where, expected=_any_of(keys), found=found)


def _any_of(keys: Mapping[str, Key]) -> str:
    return f"keys out of {', '.join(keys)}"


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}..."
