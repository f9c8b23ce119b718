"""What the arena found, in plain words, by rules: no claim that its interval does not support."""

from collections.abc import Mapping
from typing import Any

from nrp_onnx.report.words import predictor_name

#: The level of all tests.
ALPHA = 0.05
#: What ends the name of a predictor that was calibrated after it was fitted.
CALIBRATED = "_calibrated"
#: Maps that are not linear, and the linear one that has the same rights as each.
NON_LINEAR = ("nrp", "masked_kernel")
SAME_RIGHTS = "masked_ridge"
#: Without it, the linear map that sees all of the image.
PLAIN = (("nrp", "ridge"), ("kernel", "ridge"))
_FEW = 5
#: What a level is within.
_ABOVE = {"session": "animal", "image": "session", "site": "session"}
_WORDS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


def verdict(found: Mapping[str, Any]) -> str:
    """``first errs less``, ``second errs less``, or that neither is shown to.

    Args:
        found: a pooled difference, with ``ci95`` and ``p_holm``.
    """
    low, high = found["ci95"]
    if low <= 0 <= high:
        return "undecided"
    side = "first errs less" if high < 0 else "second errs less"
    if found["p_holm"] >= ALPHA:
        return f"{side}, but not once corrected"
    return side


def signed(value: float) -> str:
    """A difference with its sign, as the tables have it."""
    return f"{value:+.4f}".replace("-", "−")


def difference_words(found: Mapping[str, Any]) -> str:
    """A difference with its interval, as the tables have it."""
    low, high = found["ci95"]
    return f"{signed(found['difference'])} [{signed(low)}, {signed(high)}]"


def p_words(p: float) -> str:
    """A p of a bootstrap, as the tables have it."""
    return f"{p:.4f}"


def named(key: str) -> str:
    """A predictor in words, also a mixture (``a+b``) or a calibrated one (``a_calibrated``)."""
    base = key.removesuffix(CALIBRATED)
    words = predictor_name(base)
    return f"calibrated {words}" if base != key else words


def title(study: Mapping[str, Any]) -> str:
    """Such as: Six networks on real V4."""
    n = len(study["models"])
    recordings = study["recordings"]
    real = "simulated" if any(of["simulated"] for of in recordings) else "real"
    regions = list(dict.fromkeys(name for of in recordings for name in of["regions"]))
    networks = "network" if n == 1 else "networks"
    return f"{_count(n).capitalize()} {networks} on {real} {_and(regions)}"


def answer(study: Mapping[str, Any]) -> list[str]:
    """Does a non-linear map beat a linear one that has the same rights? In sentences.

    Args:
        study: the content of arena.json.
    """
    records = {(of["first"], of["second"]): of for of in study["predictor_pairs"]}
    fair = [(name, SAME_RIGHTS) for name in NON_LINEAR if (name, SAME_RIGHTS) in records]
    asked = fair or [pair for pair in PLAIN if pair in records]
    if not asked:
        return [
            "The question is not answered: the runs have no non-linear map beside a linear one "
            "with the same rights."
        ]
    sentences = [_opening(records, asked)]
    if not fair:
        sentences.append(
            "But ridge is no linear map with the same rights: it sees the whole image at every site, and "
            "no masked ridge was fitted beside it."
        )
    sentences += [_sentence(study, records[pair]) for pair in asked]
    headline = (study["headline"], asked[0][1])
    if headline in records and headline not in asked:
        sentences.append("The headline predictor: " + _sentence(study, records[headline]))
    twins = [pair for pair in records if pair not in asked and _is_twin(pair, [*asked, headline])]
    if twins:
        sentences.append(
            "With every predictor calibrated: "
            + " ".join(_sentence(study, records[pair]) for pair in twins)
        )
    return sentences


def _opening(
    records: Mapping[tuple[str, str], Mapping[str, Any]], asked: list[tuple[str, str]]
) -> str:
    linear = named(asked[0][1])
    less: list[str] = []
    more: list[str] = []
    undecided: list[str] = []
    found = {"first errs less": less, "second errs less": more}
    for pair in asked:
        found.get(verdict(records[pair]["mae"]), undecided).append(named(pair[0]))
    open_left = f"; for {_and(undecided)} it is undecided" if undecided else ""
    if less and more:
        return f"It depends on the map: {_err(less)} less than {linear}, and {_err(more)} more than it."
    if less:
        return f"Yes, on these recordings: {_err(less)} less than {linear}{open_left}."
    if more:
        return f"No: {linear} errs less than {_and(more)}{open_left}."
    return (
        f"It is undecided: no non-linear map is shown to differ from {linear} once the differences "
        "are corrected for the number of pairs."
    )


def _sentence(study: Mapping[str, Any], record: Mapping[str, Any]) -> str:
    first, second = named(record["first"]), named(record["second"])
    mae, mse = record["mae"], record["mse"]
    words = {
        "first errs less": f"{first} errs less than {second}",
        "second errs less": f"{first} errs more than {second}",
        "undecided": f"{first} and {second} are not shown to differ",
    }
    n = len(study["predictor_pairs"])

    def said(found: Mapping[str, Any]) -> str:
        kind, _, but = verdict(found).partition(",")
        return words[kind] + (f",{but} for the number of pairs" if but else "")

    sentence = (
        f"{said(mae)}: {difference_words(mae)} in mean absolute error (p {p_words(mae['p'])}, "
        f"{p_words(mae['p_holm'])} corrected for {n} {'pair' if n == 1 else 'pairs'})"
    )
    if verdict(mse) != verdict(mae):
        sentence += f"; in mean squared error, {said(mse)}: {difference_words(mse)}"
    # A name may begin with a small letter.
    return sentence[0].upper() + sentence[1:] + "."


def _is_twin(pair: tuple[str, str], asked: list[tuple[str, str]]) -> bool:
    if not all(name.endswith(CALIBRATED) for name in pair):
        return False
    plain = [tuple(name.removesuffix(CALIBRATED) for name in of) for of in (pair, *asked)]
    return plain[0] in plain[1:]


def caveats(study: Mapping[str, Any]) -> list[str]:
    """What the pooled numbers do not show, as sentences."""
    found = [_of_levels(study["pooling"]["levels"])]
    if not all(animal for of in study["recordings"] for animal in of["animals"]):
        found.append(
            "The animals are not known: all sessions are taken as of one, so the intervals are not "
            "of other animals."
        )
    few = [
        f"{_count(of['groups'])} {of['level']}s"
        for of in study["pooling"]["levels"][:2]
        if of["resampled"] and of["groups"] < _FEW
    ]
    if few:
        found.append(
            f"With {_and(few)}, the spread over them is hardly known: the intervals are too narrow for a "
            "claim on all of their kind."
        )
    for shared in study["shared_images"]:
        first, second = shared["recordings"]
        found.append(
            f"{first} and {second} show {shared['n_images']:,} of the same images, which are drawn as "
            "if they were different ones: a little too much is taken for independent."
        )
    for of in study["recordings"]:
        if of["simulated"]:
            found.append(f"{of['name']} is SIMULATED and says nothing of brains.")
        if all(value is None for value in of["noise_floor"].values()):
            reasons = "; ".join(dict.fromkeys(filter(None, of["no_noise_floor"].values())))
            found.append(
                f"{of['name']} has no noise floor and no reliability ({reasons}): how much of its error "
                "is noise of the recording is not known."
            )
    for record in study["predictor_pairs"]:
        found += _against(record)
    if study["failed"]:
        found.append(
            "Not scored, so only models with all recordings are pooled: "
            + ", ".join(study["failed"])
            + "."
        )
    return found


def _of_levels(levels: list[Mapping[str, Any]]) -> str:
    drawn = _and([f"{of['level']}s" for of in levels if of["resampled"]])
    sentence = f"The intervals are over {drawn}"
    for of in levels:
        if not of["resampled"]:
            where = "there is" if of["level"] == "animal" else f"each {_ABOVE[of['level']]} has"
            sentence += (
                f"; not over {of['level']}s, as {where} but one, so that nothing is said of others"
            )
    return sentence + "."


def _against(record: Mapping[str, Any]) -> list[str]:
    """Recordings alone that say the opposite of all of them together."""
    pooled = record["mae"]["difference"]
    names = [
        name
        for name, found in record["recordings"].items()
        if found["difference"] * pooled < 0 and found["ci95"][0] * found["ci95"][1] > 0
    ]
    if not names:
        return []
    first, second = named(record["first"]), named(record["second"])
    return [f"{_and(names)} alone says the opposite of the pooled {first} less {second}."]


def _err(names: list[str]) -> str:
    return f"{_and(names)} {'errs' if len(names) == 1 else 'err'}"


def _and(names: list[str]) -> str:
    return (
        names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}" if names else ""
    )


def _count(n: int) -> str:
    return _WORDS[n] if n < len(_WORDS) else str(n)
