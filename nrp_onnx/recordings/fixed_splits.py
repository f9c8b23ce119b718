"""Fixed splits: which stimuli train, which test, and which test out of distribution.

A column ``split`` in stimuli.csv holds the split ``default``: train, test, ood, or nothing for a stimulus
that has no part in it. splits.json holds further ones by name:

{"NAME": {"train": [stimulus_id, ...], "test": [...], "ood": [...]}}, ood optional.
"""

import json
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec

from nrp_onnx.errors import RecordingsError
from nrp_onnx.files import write_json

SPLITS = "splits.json"
#: The label of stimuli that holds a split, and the name of that split.
COLUMN, DEFAULT = "split", "default"
PARTS = ("train", "test", "ood")
Part = Literal["train", "test", "ood"]


@dataclass(frozen=True)
class FixedSplit:
    """The stimulus_ids of each part of a split.

    Attributes:
        train: what predictors are fitted to.
        test: what they are scored on.
        ood: test stimuli from another distribution, which are scored apart; often none.
    """

    train: tuple[str, ...] = ()
    test: tuple[str, ...] = ()
    ood: tuple[str, ...] = ()

    def without(self, names: Collection[str]) -> "FixedSplit":
        """The same split without some stimuli."""
        parts = (getattr(self, part) for part in PARTS)
        return FixedSplit(*(tuple(x for x in ids if x not in names) for ids in parts))


def split_of_column(stimulus_ids: Sequence[str], values: Sequence[str]) -> FixedSplit:
    """The split that a column of stimuli.csv holds."""
    pairs = list(zip(stimulus_ids, values, strict=True))
    return FixedSplit(*(tuple(name for name, value in pairs if value == part) for part in PARTS))


def problems_of_column(values: Sequence[str], where: object) -> Iterator[RecordingsError]:
    """What is no part of a split."""
    if unknown := sorted({value for value in values if value and value not in PARTS}):
        yield RecordingsError(
            f"the column {COLUMN} holds something else than a split",
            where=where,
            expected="train, test, ood, or nothing, in each row",
            found=", ".join(map(repr, unknown[:3])),
            fix="Give a column of another meaning another name.",
        )


def problems_of_split(
    name: str, split: FixedSplit, known: Collection[str], where: object
) -> Iterator[RecordingsError]:
    """Stimuli that are unknown or in two parts."""
    part_of: dict[str, str] = {}
    for part in PARTS:
        ids = getattr(split, part)
        if unknown := [x for x in ids if x not in known]:
            yield RecordingsError(
                f"{len(unknown)} stimulus_ids of the split {name!r} are unknown",
                where=where,
                expected="ids of stimuli.csv",
                found=", ".join(map(repr, unknown[:3])),
            )
        twice = [x for x in ids if part_of.setdefault(x, part) != part]
        twice += [x for x, times in Counter(ids).items() if times > 1]
        if twice:
            yield RecordingsError(
                f"{len(twice)} stimuli come twice in the split {name!r}",
                where=where,
                expected="each stimulus in one part, once",
                found=f"{twice[0]!r} in {part_of[twice[0]]} and in {part}",
            )


def read_splits(path: Path) -> dict[str, FixedSplit]:
    """Read splits.json; nothing where there is no such file.

    Raises:
        RecordingsError: if it holds something else.
    """
    if not path.exists():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        parts = msgspec.convert(content, dict[str, dict[Part, tuple[str, ...]]])
        return {name: FixedSplit(**of_split) for name, of_split in parts.items()}
    except (OSError, ValueError, RecursionError) as error:
        raise RecordingsError(
            "these are no splits",
            where=path,
            expected='{"NAME": {"train": [stimulus_id, ...], "test": [...], "ood": [...]}}',
            found=error,
        ) from None


def write_splits(path: Path, splits: Mapping[str, FixedSplit]) -> None:
    """Write splits.json."""
    write_json(path, msgspec.to_builtins(dict(splits)))
