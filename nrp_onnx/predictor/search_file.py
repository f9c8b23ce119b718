"""Reads ``--search``: the name of a preset, or a YAML or JSON file with a search of one's own."""

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from msgspec import Meta

from nrp_onnx.errors import OptionError
from nrp_onnx.file_schema import Count, Key, checked_table, read_keys
from nrp_onnx.predictor.head import TrainingPlan
from nrp_onnx.predictor.search_space import LAYER_SETS, PRESETS, SearchSpace
from nrp_onnx.predictor.training import LOSSES

_SUFFIXES = (".yaml", ".yml", ".json")


_FINITE = sys.float_info.max
_Share = Annotated[float, Meta(ge=0, lt=1)]
_Part = Annotated[float, Meta(ge=0, le=1)]
_FromZero = Annotated[float, Meta(ge=0, le=_FINITE)]
_OverZero = Annotated[float, Meta(gt=0, le=_FINITE)]


def _each_once(values: tuple[Any, ...]) -> bool:
    return len(values) == len(set(values)) > 0


def _several(kind: Any, expected: str) -> Key:
    # YAML takes 1e-3, without a point, for a text.
    return Key(tuple[kind, ...], f"a list {expected}", is_right=_each_once, strict=False)


_COUNT = "a whole number from 1"
_LISTS = {
    "layers": _several(Literal[LAYER_SETS], f"out of {', '.join(LAYER_SETS)}"),
    "learning_rates": _several(_OverZero, "of numbers over 0"),
    "dropouts": _several(_Share, "of numbers from 0 to less than 1"),
    "weight_decays": _several(_FromZero, "of numbers from 0"),
    "losses": _several(Literal[tuple(LOSSES)], f"out of {', '.join(LOSSES)}"),
    "input_noises": _several(_FromZero, "of numbers from 0"),
    "linear_shares": _several(_Part, "of numbers from 0 to 1"),
    "masks": Key(
        tuple[Literal["gaussian", "free"], ...],
        "a list out of gaussian, free",
        is_right=lambda values: len(values) == len(set(values)),
    ),
}
_PLAN = {
    "max_epochs": Key(Count, _COUNT),
    "patience": Key(Count, _COUNT),
    "batch_size": Key(Count, _COUNT),
    "halving": Key(bool, "true or false"),
    "max_steps": Key(Count | None, f"{_COUNT}, or null"),
    "schedule": Key(Literal["constant", "cosine"], "constant or cosine"),
}
_DEFAULTS = vars(SearchSpace()) | vars(TrainingPlan())
_KEYS = {
    name: replace(key, default=_DEFAULTS[name])
    for name, key in {
        **_LISTS,
        "sizes": Key(
            tuple[tuple[Count, Annotated[int, Meta(ge=0)]], ...],
            "a list of pairs [NRP-L1, NRP-L2], whole numbers from 1",
            is_right=_each_once,
        ),
        "seeds": Key(Count, _COUNT),
        "directions": Key(Count | None, f"{_COUNT}, or null"),
        "members": Key(Annotated[int, Meta(ge=0)], "a whole number from 0"),
        "kernel_ridge": Key(bool, "true or false"),
        "components": Key(Count, _COUNT),
        "channels": Key(Count, _COUNT),
        "parts": Key(Annotated[int, Meta(ge=0)], "a whole number from 0"),
        "calibrate": Key(bool, "true or false"),
        "masked": Key(bool, "true or false"),
        **_PLAN,
    }.items()
}


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
    table = {
        # One value alone is a list of one.
        name: [value] if name in _LISTS and not isinstance(value, list) else value
        for name, value in checked_table(content or None, _KEYS, path, OptionError).items()
    }
    values = read_keys(table, _KEYS, path, OptionError)
    plan = TrainingPlan(**{name: values.pop(name) for name in _PLAN})
    return SearchSpace(**values, plan=plan)
