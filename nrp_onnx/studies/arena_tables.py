"""The tables of the arena, for a page and for a terminal, each from the content of arena.json."""

from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from rich.table import Table

from nrp_onnx.report.page_tables import Cell, PageTable
from nrp_onnx.studies.arena_words import difference_words, named, p_words, verdict

_FIELDS = ("ridge", "masked_ridge")


def models_table(study: Mapping[str, Any]) -> PageTable:
    """What was scored."""
    headings = [("Model", False), ("Parameters", True), ("Weights", False), ("Layers", True)]
    headings.append(("SHA-256", False))
    rows = [
        [
            Cell(of["model"]),
            Cell(f"{of['n_parameters']:,}", of["n_parameters"]),
            Cell(_weights(of["weights"])),
            Cell(str(len(of["layers"])), len(of["layers"])),
            Cell(of["sha256"][:12]),
        ]
        for of in study["models"]
    ]
    return PageTable("The models, and how many of their layers were scored.", headings, rows)


def recordings_table(study: Mapping[str, Any]) -> PageTable:
    """What they were scored on."""
    names = ("Recordings", "Animal", "Session", "Regions")
    headings = [(name, False) for name in names]
    headings += [(name, True) for name in ("Images", "Sites", "Reliability", "Noise floor")]
    headings.append(("Licence", False))
    rows = [
        [
            Cell(of["name"] + (" (SIMULATED)" if of["simulated"] else "")),
            Cell(", ".join(filter(None, of["animals"])) or "?"),
            Cell(", ".join(of["sessions"])),
            Cell(", ".join(of["regions"])),
            Cell(f"{of['n_images']:,}", of["n_images"]),
            Cell(str(of["n_sites"]), of["n_sites"]),
            Cell(_by_region(of["reliability"])),
            Cell(_by_region(of["noise_floor"])),
            Cell(of["licence"] or "not said"),
        ]
        for of in study["recordings"]
    ]
    caption = (
        "Reliability: split-half, of the averaged responses, median over the sites of a region."
    )
    return PageTable(caption, headings, rows)


def shown_predictors(study: Mapping[str, Any]) -> list[str]:
    """The headline, and the linear maps beside it; each has a table of errors."""
    known = study["pooling"]["predictors"]
    return list(dict.fromkeys([study["headline"], *(of for of in _FIELDS if of in known)]))


def scores_table(study: Mapping[str, Any], predictor: str) -> PageTable:
    """The error of a predictor: a row a model, a column a recordings, and all of them pooled."""
    names = [of["name"] for of in study["recordings"]]
    scores = {(of["model"], of["recordings"]): of["predictors"] for of in study["scores"]}
    rows = []
    for model in (of["model"] for of in study["models"]):
        row = [Cell(model)]
        for name in names:
            found = scores.get((model, name), {}).get(predictor)
            row.append(_error(found))
        row.append(_error(study["pooled"].get(model, {}).get(predictor), strong=True))
        rows.append(row)
    pooled = study["pooled"]["all"].get(predictor)
    rows.append([Cell("all", strong=True), *[Cell("") for _ in names], _error(pooled, strong=True)])
    headings = [("Model", False), *((name, True) for name in names), ("Pooled", True)]
    called = "NRP-error" if predictor == study["headline"] else "Error"
    caption = (
        f"{called} of the {named(predictor)} (MAE in {study['units']}, held-out images; "
        "[95 % interval]). Of one recordings: over its images and sites. Pooled: over animals and "
        "sessions as well."
    )
    return PageTable(caption, headings, rows)


def predictor_pairs_table(study: Mapping[str, Any]) -> PageTable:
    """The pooled paired difference of every two predictors, over all models and recordings."""
    caption = (
        "First less second, pooled over all models and recordings, [95 % interval]; negative: the "
        "first errs less. p: two-sided, corrected for the number of pairs (Holm). Better at: sites "
        "where the first errs less, mean over models. The verdict is on the mean absolute error."
    )
    return PageTable(
        caption,
        _PAIR_HEADINGS,
        [_pair_row(named(of["first"]), named(of["second"]), of) for of in study["predictor_pairs"]],
    )


def model_pairs_table(study: Mapping[str, Any]) -> PageTable:
    """The pooled paired difference of every two models, with the headline predictor."""
    caption = (
        f"NRP-error ({named(study['headline'])}) with the first model less that with the "
        "second, pooled over all recordings; as above."
    )
    rows = [_pair_row(of["first"], of["second"], of) for of in study["model_pairs"]]
    return PageTable(caption, _PAIR_HEADINGS, rows)


def single_table(study: Mapping[str, Any], level: str) -> PageTable:
    """The differences of predictors, of each recordings or of each model alone.

    Args:
        level: ``recordings``, or ``models``.
    """
    names = (
        [of["name"] for of in study["recordings"]]
        if level == "recordings"
        else study["pooling"]["models"]
    )
    rows = []
    for of in study["predictor_pairs"]:
        row = [Cell(named(of["first"])), Cell(named(of["second"]))]
        row += [
            Cell(difference_words(of[level][name]), of[level][name]["difference"]) for name in names
        ]
        rows.append(row)
    over = "images and sites of each" if level == "recordings" else "the same levels"
    mean = ", mean over all models" if level == "recordings" else ", pooled over all recordings"
    caption = (
        f"The same differences in mean absolute error{mean}; intervals over {over}, not corrected."
    )
    return PageTable(
        caption, [("First", False), ("Second", False), *((of, True) for of in names)], rows
    )


def arena_tables(study: Mapping[str, Any]) -> list[Table]:
    """For a terminal: the errors, and both kinds of pairs."""
    tables = [scores_table(study, of) for of in shown_predictors(study)]
    tables += [
        table for table in (predictor_pairs_table(study), model_pairs_table(study)) if table.rows
    ]
    return [_for_terminal(table) for table in tables]


def citations(study: Mapping[str, Any]) -> list[str]:
    """What to cite, each once."""
    return list(dict.fromkeys(of["citation"] for of in study["recordings"] if of["citation"]))


_PAIR_HEADINGS = [
    ("First", False), ("Second", False), ("Verdict", False), ("MAE", True), ("p", True),
    ("corrected", True), ("Better at", True), ("MSE", True), ("p, MSE", True),
    ("corrected, MSE", True),
]  # fmt: skip


def _pair_row(first: str, second: str, record: Mapping[str, Any]) -> list[Cell]:
    found = verdict(record["mae"])
    wins, n = record["wins"], record["n_sites"]
    return [
        Cell(first),
        Cell(second),
        Cell(found, strong=found != "undecided"),
        *_difference_cells(record["mae"]),
        Cell(f"{wins} of {n} sites", wins / n),
        *_difference_cells(record["mse"]),
    ]


def _difference_cells(found: Mapping[str, Any]) -> list[Cell]:
    """The difference with its interval, its p, and its corrected p."""
    tests = [Cell(p_words(found[key]), found[key]) for key in ("p", "p_holm")]
    return [Cell(difference_words(found), found["difference"]), *tests]


def _error(found: Mapping[str, Any] | None, strong: bool = False) -> Cell:
    if found is None:
        return Cell("–")
    low, high = found["ci95"]
    return Cell(f"{found['mae']:.3f} [{low:.3f}, {high:.3f}]", found["mae"], strong)


def _by_region(values: Mapping[str, float | None]) -> str:
    """A number, with its region where there are several."""
    texts = {name: "–" if of is None else f"{of:.3f}" for name, of in values.items()}
    if len(texts) == 1:
        return next(iter(texts.values()))
    return ", ".join(f"{name} {text}" for name, text in texts.items()) or "–"


def _weights(weights: object) -> str:
    """Such as imagenet; of a file, its name."""
    return (
        "random" if weights == "none" else PurePath(str(weights)).name if weights else "in the file"
    )


def _for_terminal(table: PageTable) -> Table:
    shown = Table(caption=table.caption)
    for name, numeric in table.headings:
        shown.add_column(name, justify="right" if numeric else "left")
    for row in table.rows:
        shown.add_row(*(cell.text for cell in row))
    return shown
