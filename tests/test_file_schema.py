"""Tables of keys: what is read, and what a user is told."""

from typing import Any

import pytest

from nrp_onnx.errors import OptionError, RecordingsError
from nrp_onnx.file_schema import Count, Key, Text, read_key, read_keys

KEYS = {
    "name": Key(Text, "a text"),
    "sites": Key(Count, "a whole number from 1", 5),
    "licence": Key(Text, "a text or null", None),
    "window": Key(
        tuple[float, float], "two rising numbers", None, is_right=lambda pair: pair[0] < pair[1]
    ),
    "rate": Key(float, "a number", 0.1, strict=False),
}


def test_values_come_in_their_types_and_the_others_are_the_defaults() -> None:
    found = read_keys({"name": "a", "window": [70, 170], "licence": None}, KEYS, "f", OptionError)
    assert found == {
        "name": "a", "sites": 5, "licence": None, "window": (70.0, 170.0), "rate": 0.1
    }  # fmt: skip
    assert isinstance(found["window"][0], float)
    assert read_key({"rate": "1e-3"}, "rate", KEYS, "f", OptionError) == 1e-3


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, "f: the key name is missing; expected a text; found nothing"),
        ({"name": None}, "f: the key name is wrong; expected a text; found None"),
        ({"name": " "}, "f: the key name is wrong; expected a text; found ' '"),
        ({"name": "a", "sites": None}, "f: the key sites is wrong; expected a whole number from 1"),
        ({"name": "a", "sites": True}, "found True"),
        ({"name": "a", "window": [170, 70]}, "expected two rising numbers; found [170, 70]"),
        (
            {"name": "a", "rate": "fast"},
            "f: the key rate is wrong; expected a number; found 'fast'",
        ),
        ({"name": "a", "site": 3}, "the key 'site' is unknown; expected keys out of name, sites, "),
        ({"name": "a", "site": 3}, "Write sites, if that is meant."),
        ({"name": "a", 3: 3}, "the key 3 is unknown"),
        ({"name": "a", "\x1b[31m": 3}, r"the key '\x1b[31m' is unknown"),
        ([1], "f: this is no table of keys; expected keys out of name, sites, "),
        (None, "found nothing"),
    ],
)
def test_what_is_wrong_is_said_with_its_key(content: Any, message: str) -> None:
    for error in (OptionError, RecordingsError):
        with pytest.raises(error) as raised:
            read_keys(content, KEYS, "f", error)
        assert message in str(raised.value)


def test_a_long_value_is_cut() -> None:
    with pytest.raises(OptionError) as raised:
        read_keys({"name": ["x" * 10**6]}, KEYS, "f", OptionError)
    assert len(str(raised.value)) < 400
