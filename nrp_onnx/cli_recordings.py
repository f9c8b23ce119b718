"""The commands of nrp-onnx recordings: import, describe, validate; list and fetch."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from nrp_onnx.cli_recordings_import import import_command
from nrp_onnx.cli_recordings_list import fetch_command, list_command

recordings_app = typer.Typer(
    help="Neural recordings: bring in your own, look at them, check them.", no_args_is_help=True
)
recordings_app.command("import")(import_command)
recordings_app.command("list")(list_command)
recordings_app.command("fetch")(fetch_command)

FolderArgument = Annotated[Path, typer.Argument(help="A recordings folder.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@recordings_app.command("describe")
def describe_command(folder: FolderArgument, as_json: JsonOption = False) -> None:
    """Say what recordings hold.

    Example: nrp-onnx recordings describe my_recordings --json
    """
    from nrp_onnx.recordings import describe_recordings, load_recordings

    facts = describe_recordings(load_recordings(folder))
    if as_json:
        typer.echo(json.dumps(facts, indent=2, ensure_ascii=False))
        return
    if facts["simulated"]:
        typer.echo("SIMULATED")
    for name, value in facts.items():
        typer.echo(f"{name}: {_in_words(value)}")


@recordings_app.command("validate")
def validate_command(folder: FolderArgument, as_json: JsonOption = False) -> None:
    """Check a recordings folder, images included; exit code 2 if there are problems.

    Example: nrp-onnx recordings validate my_recordings
    """
    from nrp_onnx.recordings import validate_recordings

    problems = validate_recordings(folder)
    if as_json:
        typer.echo(json.dumps({"problems": problems}, indent=2, ensure_ascii=False))
    else:
        typer.echo("\n".join(problems) or "no problems")
    if problems:
        raise typer.Exit(2)


def _in_words(value: Any) -> str:
    """A fact on one line."""
    if value is None or value == {}:
        return "unknown"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        return ", ".join(f"{name} {_in_brief(inner)}" for name, inner in value.items())
    if isinstance(value, tuple):
        return " to ".join(f"{end:g}" for end in value)
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _in_brief(value: Any) -> str:
    """A fact inside another: of the classes of a label only their number."""
    return f"{value['n_classes']} classes" if isinstance(value, dict) else _in_words(value)
