"""The changes of images that a study of robustness measured: noise, and FGSM if it was asked for."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Change:
    """One change at one level.

    Attributes:
        key: of the records: ``sensitivity`` (to noise) or ``fgsm``.
        level: as the records have it, in grey levels of 255.
        name: for people.
        correlation: of what was measured and the NRP-error; None over too few models.
    """

    key: str
    level: str
    name: str
    correlation: Mapping[str, Any] | None


def changes_of(study: Mapping[str, Any]) -> list[Change]:
    """All changes, in the order of the command line.

    Args:
        study: the content of robustness.json.
    """
    found = study.get("fgsm", {"rank_correlation": {}})["rank_correlation"]
    kinds = {"sensitivity": ("noise of", study["rank_correlation"]), "fgsm": ("FGSM of", found)}
    return [
        Change(key, level, f"{name} {level}", correlation)
        for key, (name, correlations) in kinds.items()
        for level, correlation in correlations.items()
    ]


def measured(study: Mapping[str, Any], change: Change) -> list[Mapping[str, Any]]:
    """The records of the models that have it: FGSM needs gradients."""
    return [of for of in study["models"] if of[change.key][change.level]["value"] is not None]
