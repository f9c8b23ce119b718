"""The pages of the arena: report.html with its figures, and the results in Markdown."""

import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from nrp_onnx.files import whole_file
from nrp_onnx.report.figures import save_study_figure
from nrp_onnx.report.page import drawings, write_page
from nrp_onnx.report.page_tables import PageTable
from nrp_onnx.scoring.run import FinishedRun
from nrp_onnx.studies.arena_figures import arena_figures
from nrp_onnx.studies.arena_tables import (
    citations,
    model_pairs_table,
    models_table,
    predictor_pairs_table,
    recordings_table,
    scores_table,
    shown_predictors,
    single_table,
)
from nrp_onnx.studies.arena_words import answer, caveats, title

_LINE = 100


def write_arena_report(
    study: Mapping[str, Any],
    runs: Mapping[tuple[str, str], FinishedRun],
    out: Path,
    page: Path | None = None,
) -> None:
    """Write the figures and ``out/report.html``, and the Markdown page.

    Args:
        study: the content of arena.json.
        runs: by model and recordings.
        page: of the results in Markdown; None: none.
    """
    figures, missing = arena_figures(study, runs, shown_predictors(study))
    for figure in figures:
        save_study_figure(figure, out)
    write_page(
        out / "report.html",
        "arena.html.jinja",
        title=title(study),
        simulated=any(of["simulated"] for of in study["recordings"]),
        answer=answer(study),
        sections=list(_sections(study)),
        figures=drawings(figures, "arena"),
        missing=missing,
        caveats=caveats(study),
        method=_method(study),
        citations=citations(study),
    )
    if page is not None:
        with whole_file(page) as part:
            part.write_text(arena_page(study), encoding="utf-8")


def arena_page(study: Mapping[str, Any]) -> str:
    """The results in words and tables, as Markdown.

    Args:
        study: the content of arena.json.
    """
    simulated = any(of["simulated"] for of in study["recordings"])
    lines = [f"# {title(study)}", ""]
    if simulated:
        lines += ["**SIMULATED:** these numbers say nothing of brains.", ""]
    if study["command"]:
        lines += ["This page is written by one command:", "", *_command(study["command"]), ""]
    lines += ["Does a non-linear map beat a linear one that has the same rights?", ""]
    lines += [" ".join(answer(study)), ""]
    for heading, tables in _sections(study):
        lines += [f"## {heading}", ""]
        if heading == _SCORED:
            for citation in citations(study):
                lines += [f"Source of the recordings: {citation}", ""]
        for table in tables:
            lines += [*_markdown(table), "", table.caption, ""]
    lines += ["## What these numbers do not show", "", *(f"- {of}" for of in caveats(study)), ""]
    lines += ["## How it was pooled", "", _method(study), ""]
    return "\n".join(lines)


_SCORED = "What was scored"


def _sections(study: Mapping[str, Any]) -> Iterator[tuple[str, list[PageTable]]]:
    yield _SCORED, [models_table(study), recordings_table(study)]
    yield "Errors", [scores_table(study, of) for of in shown_predictors(study)]
    if study["predictor_pairs"]:
        yield (
            "Predictors against each other",
            [
                predictor_pairs_table(study),
                single_table(study, "recordings"),
                single_table(study, "models"),
            ],
        )
    if study["model_pairs"]:
        yield "Models against each other", [model_pairs_table(study)]


def _method(study: Mapping[str, Any]) -> str:
    pooling, protocol, versions = study["pooling"], study["protocol"], study["versions"]
    groups = ", ".join(
        f"{of['groups']:,} {of['level']}{'' if of['groups'] == 1 else 's'}{'' if of['resampled'] else ' (not drawn)'}"
        for of in pooling["levels"]
    )
    seeds = "" if protocol["seeds"] == 1 else f", {protocol['seeds']} seeds"
    return (
        f"Errors are means over animals of means over sessions of means over regions, then images and "
        f"sites; every model counts alike. Intervals: {pooling['n_resamples']:,} resamples (seed "
        f"{study['seed']}) of animals, of sessions within each, of images and sites within each session: "
        f"{groups}, all sessions taken together. The same resamples serve all models and predictors, so "
        f"that differences are paired. Protocol {protocol['name']}, {protocol['folds']} folds{seeds}, "
        f"search {study['search']}, rates {protocol['normalise']}. Versions: "
        + ", ".join(f"{name} {version}" for name, version in versions.items())
        + "."
    )


def _markdown(table: PageTable) -> list[str]:
    names = [name for name, _ in table.headings]
    marks = ["---:" if numeric else "---" for _, numeric in table.headings]
    rows = [[cell.text for cell in row] for row in table.rows]
    return [
        f"| {' | '.join(row)} |"
        for row in ([_escaped(of) for of in names], marks, *map(_cells, rows))
    ]


def _cells(row: Sequence[str]) -> list[str]:
    return [_escaped(text) for text in row]


def _escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _command(words: Sequence[str]) -> list[str]:
    """The command in an indented block, broken before its options."""
    lines, line = [], ""
    for word in map(shlex.quote, words):
        if line and (
            len(line) + len(word) > _LINE or (word.startswith("-") and len(line) > _LINE / 2)
        ):
            lines.append(f"{line} \\")
            line = "    "
        line = f"{line} {word}" if line.strip() else line + word
    return [f"    {of}" for of in (*lines, line)]
