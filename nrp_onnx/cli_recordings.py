"""The commands of nrp-onnx recordings: import, describe, validate; list and fetch."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from nrp_onnx.cli_recordings_list import fetch_command, list_command

recordings_app = typer.Typer(
    help="Neural recordings: bring in your own, look at them, check them.", no_args_is_help=True
)
recordings_app.command("list")(list_command)
recordings_app.command("fetch")(fetch_command)

FolderArgument = Annotated[Path, typer.Argument(help="A recordings folder.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@recordings_app.command("import")
def import_command(
    images: Annotated[Path, typer.Argument(help="A folder or a zip of images.")],
    responses: Annotated[Path, typer.Argument(help="An array of responses, .npy or .npz.")],
    axes: Annotated[
        str,
        typer.Option(help="The array's axes in order: site, stimulus and, if any, repetition."),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="The new recordings folder.")],
    name: Annotated[
        str | None, typer.Option(help="Of the recordings; by default that of RESPONSES.")
    ] = None,
    region: Annotated[str | None, typer.Option(help="The region of all sites, as V4.")] = None,
    sites: Annotated[
        Path | None,
        typer.Option(help="Instead of --region: CSV with site_id, region, in the axis' order."),
    ] = None,
    stimuli: Annotated[
        Path | None,
        typer.Option(help="CSV with stimulus_id, filename, any labels, in the axis' order."),
    ] = None,
    key: Annotated[str | None, typer.Option(help="The array in an .npz of several.")] = None,
    units: Annotated[str, typer.Option(help="Of the responses, as 'spikes'.")] = "unknown",
    normalised: Annotated[
        bool, typer.Option("--normalised", help="The responses are relative to a blank stimulus.")
    ] = False,
    time_window_ms: Annotated[
        tuple[float, float] | None,
        typer.Option(help="Start and end of the counts after stimulus onset, in ms."),
    ] = None,
    licence: Annotated[str | None, typer.Option(help="Of the data.")] = None,
    citation: Annotated[str | None, typer.Option(help="What to cite.")] = None,
    simulated: Annotated[
        bool, typer.Option("--simulated", help="The responses come from a model.")
    ] = False,
) -> None:
    """Make a recordings folder from images and an array of responses.

    Example: nrp-onnx recordings import images.zip responses.npy --axes site,stimulus,repetition
    --region V4 --stimuli stimuli.csv --units spikes -o my_recordings
    """
    from nrp_onnx.recordings import import_arrays

    recordings = import_arrays(
        images,
        responses,
        out,
        axes=[axis.strip() for axis in axes.split(",")],
        name=name,
        region=region,
        sites=sites,
        stimuli=stimuli,
        key=key,
        units=units,
        normalised=normalised,
        time_window_ms=time_window_ms,
        licence=licence,
        citation=citation,
        simulated=simulated,
    )
    typer.echo(f"{out}: {recordings.n_stimuli} stimuli, {recordings.n_sites} sites")


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
