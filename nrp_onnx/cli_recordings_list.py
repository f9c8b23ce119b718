"""The commands nrp-onnx recordings list and fetch."""

import json
import textwrap
from typing import Annotated, Any

import typer
from rich import box
from rich.table import Table

_WIDTH = 80
_LONGEST_NAME = 24  # longer ones are folded


def list_command(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List the recordings that --recordings knows by name, and whether they are cached.

    Example: nrp-onnx recordings list --json
    """
    from nrp_onnx.notes import Notes
    from nrp_onnx.recordings.listing import list_recordings
    from nrp_onnx.report.table import print_table

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
