"""The commands ``nrp-onnx recordings ...``: import, describe, validate."""

import json
from pathlib import Path
from typing import Annotated

import typer

recordings_app = typer.Typer(help="Make, describe and check recordings.", no_args_is_help=True)

Folder = Annotated[Path, typer.Argument(help="A recordings folder.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON to stdout.")]


@recordings_app.command("import")
def import_(
    images: Annotated[Path, typer.Argument(help="A folder or a zip of images.")],
    responses: Annotated[Path, typer.Argument(help="A .npy or .npz array.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="The recordings folder to make.")],
    axes: Annotated[
        str, typer.Option(help="The array's axes in order, such as site,stimulus,repetition.")
    ],
    region: Annotated[str | None, typer.Option(help="The region of all sites.")] = None,
    sites: Annotated[
        Path | None, typer.Option(help="Or a CSV: site_id, region, ..., in the array's order.")
    ] = None,
    stimuli: Annotated[
        Path | None,
        typer.Option(help="A CSV: stimulus_id, filename, labels, in the array's order."),
    ] = None,
    key: Annotated[str | None, typer.Option(help="Which array of an .npz.")] = None,
    name: Annotated[str | None, typer.Option(help="[default: the array's file name]")] = None,
    units: Annotated[str, typer.Option(help="Of the responses.")] = "unknown",
    normalised: Annotated[
        bool, typer.Option(help="The rates are normalised already, as to a blank stimulus.")
    ] = False,
    window: Annotated[
        tuple[float, float] | None, typer.Option(help="Time window in ms after onset.")
    ] = None,
    licence: Annotated[str | None, typer.Option(help="Of the data.")] = None,
    citation: Annotated[str | None, typer.Option(help="Whom to cite.")] = None,
) -> None:
    """Make a recordings folder from images and an array.

    Example: nrp-onnx recordings import images.zip rates.npy --axes site,stimulus,repetition
    --region V4 --stimuli stimuli.csv -o my_recordings
    """
    from nrp_onnx.recordings.array_import import import_arrays

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
        time_window_ms=window,
        licence=licence,
        citation=citation,
    )
    print(f"{recordings.n_stimuli} stimuli, {recordings.n_sites} sites: {out}")


@recordings_app.command()
def describe(
    recordings: Annotated[
        str, typer.Argument(help="A recordings folder, simulated, or simulated:N.")
    ],
    as_json: AsJson = False,
) -> None:
    """Say what recordings hold.

    Example: nrp-onnx recordings describe my_recordings
    """
    from nrp_onnx.notes import Notes
    from nrp_onnx.recordings.description import describe_recordings
    from nrp_onnx.recordings.sources import open_recordings

    facts = describe_recordings(open_recordings(recordings, Notes()))
    if as_json:
        print(json.dumps(facts, indent=2, ensure_ascii=False))
        return
    for name, value in facts.items():
        text = value
        if isinstance(value, dict):
            text = ", ".join(f"{key} {count}" for key, count in value.items())
        print(f"{name:16} {'-' if text in (None, '') else text}")


@recordings_app.command()
def validate(folder: Folder, as_json: AsJson = False) -> None:
    """Say all that is wrong with a recordings folder; exit 2 if anything is.

    Example: nrp-onnx recordings validate my_recordings
    """
    from nrp_onnx.recordings.validation import validate_recordings

    problems = validate_recordings(folder)
    if as_json:
        print(json.dumps(problems, indent=2))
    else:
        print("\n".join(problems) or f"{folder}: no problems")
    if problems:
        raise typer.Exit(2)
