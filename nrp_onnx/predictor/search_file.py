"""Reads ``--search``: the name of a preset, or a YAML or JSON file with a search of one's own."""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from nrp_onnx.errors import OptionError
from nrp_onnx.predictor.search_space import LAYER_SETS, PRESETS, SearchSpace
from nrp_onnx.predictor.training import LOSSES

_SUFFIXES = (".yaml", ".yml", ".json")


@dataclass(frozen=True)
class _Kind:
    """What a value must be: ``read`` gives it in the space's type, or raises `ValueError`."""

    expected: str
    read: Callable[[Any], Any]


def read_search(choice: str) -> SearchSpace:
    """The search that ``--search`` names.

    A file holds the attributes of `SearchSpace` and `TrainingPlan` as keys; those left out keep
    their defaults.

    Raises:
        OptionError: if it is neither a preset nor a file, or the file has a wrong key or value.
    """
    if choice in PRESETS:
        return PRESETS[choice]
    path = Path(choice)
    if path.suffix not in _SUFFIXES or not path.is_file():
        raise OptionError(
            "no such search",
            where="--search",
            expected=f"{', '.join(PRESETS)} or a file that ends in {', '.join(_SUFFIXES)}",
            found=repr(choice),
        )
    text = path.read_text(encoding="utf-8")
    try:
        content = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except (ValueError, yaml.YAMLError) as error:
        raise OptionError(
            "the file does not open", where=path, expected=path.suffix[1:].upper(), found=error
        ) from None
    if not isinstance(content, dict) or not content:
        raise OptionError(
            "this is no search",
            where=path,
            expected=f"keys out of {', '.join(_KEYS)}",
            found=type(content).__name__ if content else "nothing",
        )
    return _space(content, path)


def _space(content: dict[Any, Any], path: Path) -> SearchSpace:
    values = {}
    for key, value in content.items():
        if key not in _KEYS:
            raise OptionError(
                f"there is no key {key!r}", where=path, expected=f"one of {', '.join(_KEYS)}"
            )
        kind = _KEYS[key]
        try:
            values[key] = kind.read(value)
        except (TypeError, ValueError):
            raise OptionError(
                f"the key {key} is wrong", where=path, expected=kind.expected, found=repr(value)
            ) from None
    plan = {key: values.pop(key) for key in _PLAN if key in values}
    space = SearchSpace(**values)
    return replace(space, plan=replace(space.plan, **plan))


def _require(fine: bool) -> None:
    if not fine:
        raise ValueError


def _number(value: Any) -> float:
    # YAML takes 1e-3, without a point, for a text.
    _require(isinstance(value, int | float | str) and not isinstance(value, bool))
    return float(value)


def _within(low: float, high: float, *, open_low: bool = False) -> Callable[[Any], float]:
    def read(value: Any) -> float:
        number = _number(value)
        _require((low < number if open_low else low <= number) and number < high)
        return number

    return read


def _whole_from(least: int) -> Callable[[Any], int]:
    def read(value: Any) -> int:
        _require(isinstance(value, int) and not isinstance(value, bool) and value >= least)
        return int(value)

    return read


_count = _whole_from(1)


def _count_or_none(value: Any) -> int | None:
    return None if value is None else _count(value)


def _name(allowed: tuple[str, ...]) -> Callable[[Any], str]:
    def read(value: Any) -> str:
        _require(value in allowed)
        return str(value)

    return read


def _pair(value: Any) -> tuple[int, int]:
    _require(isinstance(value, list) and len(value) == 2)
    return _count(value[0]), _count(value[1])


def _flag(value: Any) -> bool:
    _require(isinstance(value, bool))
    return bool(value)


def _several(read: Callable[[Any], Any]) -> Callable[[Any], tuple[Any, ...]]:
    """A list without repetition; one value alone is a list of one."""

    def read_list(value: Any) -> tuple[Any, ...]:
        found = tuple(read(item) for item in (value if isinstance(value, list) else [value]))
        _require(len(found) == len(set(found)) > 0)
        return found

    return read_list


_INFINITY = float("inf")
_AT_LEAST_0 = _several(_within(0, _INFINITY))
_FLAG = _Kind("true or false", _flag)
_COUNT = _Kind("a whole number from 1", _count)
_COUNT_OR_NONE = _Kind("a whole number from 1, or null", _count_or_none)
_PLAN = {
    "max_epochs": _COUNT,
    "patience": _COUNT,
    "batch_size": _COUNT,
    "halving": _FLAG,
    "max_steps": _COUNT_OR_NONE,
    "schedule": _Kind("constant or cosine", _name(("constant", "cosine"))),
}
_KEYS = {
    "layers": _Kind(f"a list out of {', '.join(LAYER_SETS)}", _several(_name(LAYER_SETS))),
    "sizes": _Kind(
        "a list of pairs [NRP-L1, NRP-L2], whole numbers from 1",
        lambda value: _several(_pair)(value if isinstance(value, list) else None),
    ),
    "learning_rates": _Kind(
        "a list of numbers over 0", _several(_within(0, _INFINITY, open_low=True))
    ),
    "dropouts": _Kind("a list of numbers from 0 to less than 1", _several(_within(0, 1))),
    "weight_decays": _Kind("a list of numbers from 0", _AT_LEAST_0),
    "losses": _Kind(f"a list out of {', '.join(LOSSES)}", _several(_name(tuple(LOSSES)))),
    "input_noises": _Kind("a list of numbers from 0", _AT_LEAST_0),
    "seeds": _COUNT,
    "directions": _COUNT_OR_NONE,
    "members": _Kind("a whole number from 0", _whole_from(0)),
    "linear_shares": _Kind("a list of numbers from 0 to less than 1", _several(_within(0, 1))),
    "kernel_ridge": _FLAG,
    **_PLAN,
}
