"""The commands of nrp-onnx recordings: import, merge, describe, validate, list and fetch."""

import json
import textwrap
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich import box
from rich.table import Table

from nrp_onnx.cli.recordings_import import import_command

recordings_app = typer.Typer(
    help="Neural recordings: bring in your own, look at them, check them.", no_args_is_help=True
)

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
    from nrp_onnx.recordings.folder import examine_recordings

    found = examine_recordings(folder)
    if as_json:
        typer.echo(json.dumps(asdict(found), indent=2, ensure_ascii=False))
    else:
        typer.echo("\n".join(found.problems) or "no problems")
        for line in _images_in_words(found.images):
            typer.echo(line)
    if found.problems:
        raise typer.Exit(2)


def _images_in_words(images: dict[str, Any]) -> list[str]:
    """What the images are like, a line each; what none has is left out."""
    modes = ", ".join(f"{n} {mode}" for mode, n in images["modes"].items())
    bits = ", ".join(f"{n} of {depth} bits" for depth, n in images["bits"].items())
    lines = [f"images: {modes}; {bits} a channel"] if modes else []
    if images["transparent"]:
        lines.append(f"with transparent pixels, shown on mid grey: {images['transparent']}")
    if images["turned"]:
        lines.append(f"turned upright, as EXIF says: {images['turned']}")
    if images["duplicates"]:
        pairs = ", ".join(f"{second!r} as {first!r}" for first, second in images["duplicate_pairs"])
        lines.append(f"with the pixels of another: {images['duplicates']}, such as {pairs}")
    return lines


def _in_words(value: Any) -> str:
    """A fact on one line."""
    if value is None or value == {}:
        return "unknown"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(value) or "none"
    if isinstance(value, dict):
        return ", ".join(f"{name} {_in_brief(inner)}" for name, inner in value.items())
    if isinstance(value, tuple):
        return " to ".join(f"{end:g}" for end in value)
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _in_brief(value: Any) -> str:
    """A fact inside another: of the classes of a label only their number."""
    if not isinstance(value, dict):
        return _in_words(value)
    if "n_classes" in value:
        return f"{value['n_classes']} classes"
    # The parts of a split.
    return " and ".join(
        f"{part} of {facts['n_stimuli']:,} stimuli ({facts['repetitions']:g} repetitions)"
        for part, facts in value.items()
    )


_WIDTH = 80
_LONGEST_NAME = 24  # longer ones are folded


def list_command(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List the recordings that --recordings knows by name, and whether they are cached.

    Example: nrp-onnx recordings list --json
    """
    from nrp_onnx.notes import Notes
    from nrp_onnx.recordings.describe import list_recordings
    from nrp_onnx.report.terminal import print_table

    found = list_recordings(Notes())
    if as_json:
        typer.echo(json.dumps(found, indent=2, ensure_ascii=False))
        return
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    longest = min(max(len(facts["name"]) for facts in found), _LONGEST_NAME)
    table.add_column("name", overflow="fold", min_width=longest, max_width=longest)
    for heading in ("species", "sites", "stimuli", "size", "cached"):
        table.add_column(heading)
    for facts in found:
        table.add_row(
            facts["name"],
            "SIMULATED" if facts["simulated"] else facts["species"] or "?",
            "\n".join(f"{region} {n}" for region, n in (facts["regions"] or {}).items()) or "?",
            f"{facts['n_stimuli']:,}" if facts["n_stimuli"] else "?",
            _size(facts),
            {True: "yes", False: "no", None: "?"}[facts["cached"]],
        )
    print_table(table)
    for facts in found:
        text = f"{facts['name']}: {facts['title'] or facts['source']}. "
        text += f"Licence: {facts['licence'] or 'unknown'}."
        if facts["citation"]:
            text += f" Cite: {facts['citation']}."
        typer.echo(textwrap.fill(text, _WIDTH, subsequent_indent="  ", break_on_hyphens=False))


def fetch_command(
    name: Annotated[str, typer.Argument(help="A name from: nrp-onnx recordings list.")],
) -> None:
    """Download, check and import public recordings, and print their folder.

    Example: nrp-onnx recordings fetch majajhong2015
    """
    from nrp_onnx.notes import Notes
    from nrp_onnx.recordings import open_recordings

    recordings = open_recordings(name, Notes())
    typer.echo(recordings.stimulus_paths[0].parents[1])


def _size(facts: dict[str, Any]) -> str:
    from nrp_onnx.recordings.public import in_megabytes

    if facts["simulated"]:
        return "rendered"
    if facts["about_bytes"] is None:
        return "unknown"
    size = in_megabytes(facts["about_bytes"])
    return size if facts["sizes_are_known"] else size.replace("about", "over")


def merge_command(
    folders: Annotated[list[Path], typer.Argument(help="Recordings folders, two or more.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The new recordings folder.")],
    name: Annotated[
        str | None, typer.Option(help="Of the recordings; by default the old names, joined.")
    ] = None,
) -> None:
    """Make one recordings folder of several sessions or animals.

    Example: nrp-onnx recordings merge monday tuesday -o both
    """
    from nrp_onnx.recordings import merge_recordings

    recordings = merge_recordings(folders, out, name=name)
    typer.echo(f"{out}: {recordings.n_stimuli} stimuli, {recordings.n_sites} sites")


recordings_app.command("import")(import_command)
recordings_app.command("merge")(merge_command)
recordings_app.command("list")(list_command)
recordings_app.command("fetch")(fetch_command)
