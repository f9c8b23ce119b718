"""``nrp-onnx show``: the card of an exported model."""

import json
from pathlib import Path
from typing import Annotated

import typer


def show_command(
    path: Annotated[
        Path,
        typer.Argument(metavar="FILE", help="An exported .onnx of a run, or its predictor.json."),
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print all of it as JSON.")] = False,
) -> None:
    """Print what an exported predictor is: model, recordings, sites, scores, which images it saw.

    Example: nrp-onnx show runs/model/predictor.onnx
    """
    from dataclasses import asdict

    from nrp_onnx.export.card import read_card

    card = read_card(path)
    if as_json:
        print(json.dumps(asdict(card), indent=2))
        return
    for name, text in card.lines():
        print(f"{name:<15} {text}")
