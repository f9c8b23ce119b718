"""What the commands `study ...` that score several models have in common."""

import json
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from nrp_onnx.main_job import ScoreOptions
    from nrp_onnx.recordings import Recordings

Model = Annotated[Path, typer.Argument(help="An ONNX backbone.")]
Out = Annotated[Path, typer.Option("-o", "--out", help="Folder of the study.")]
RecordingsName = Annotated[str | None, typer.Option(help="As in `score`. [default: simulated]")]
Reduce = Annotated[str, typer.Option(help="As in `score`.")]
Preprocess = Annotated[str | None, typer.Option(help="As in `score`.")]
Region = Annotated[list[str] | None, typer.Option(help="Only this region; may be repeated.")]
Normalise = Annotated[str | None, typer.Option(help="As in `score`.")]
Search = Annotated[str, typer.Option(help="As in `score`.")]
Protocol = Annotated[str, typer.Option(help="As in `score`.")]
Folds = Annotated[int, typer.Option(help="As in `score`.")]
Seed = Annotated[int, typer.Option(help="Of folds, weights, bootstrap and random pruning.")]
Device = Annotated[str, typer.Option(help="As in `score`.")]
Engine = Annotated[str, typer.Option(help="As in `score`; models are tasks.")]
RayAddress = Annotated[str | None, typer.Option(help="As in `score`.")]
Overwrite = Annotated[bool, typer.Option(help="Score again what the folder holds already.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON to stdout.")]


def score_options(context: typer.Context) -> "ScoreOptions":
    """Those of a command's options that are options of a score; a study's runs have no reports."""
    from nrp_onnx.main_job import ScoreOptions

    known = {field.name for field in fields(ScoreOptions)}
    given = {key: value for key, value in context.params.items() if key in known}
    return ScoreOptions(**given, report=False)


def opened(name: str | None, region: list[str] | None) -> "Recordings":
    """The recordings of that name, with these regions only if any are named."""
    from nrp_onnx.notes import Notes
    from nrp_onnx.recordings import open_recordings

    recordings = open_recordings(name, Notes())
    return recordings.select_regions(region) if region else recordings


def show(study: dict[str, Any], tables: list[Any], out: Path, as_json: bool) -> None:
    """Print a study: its tables, or all of it as JSON."""
    from nrp_onnx.report.table import print_table

    if as_json:
        print(json.dumps(study, indent=2, ensure_ascii=False))
        return
    for table in tables:
        print_table(table)
    print(f"Files: {out}")
