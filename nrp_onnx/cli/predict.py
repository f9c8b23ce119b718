"""The command predict."""

import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

from nrp_onnx.cli.options import AsJson, Device
from nrp_onnx.files import exported_file

PREDICTOR = "predictor.onnx"


def predict_command(
    predictor: Annotated[
        Path,
        typer.Argument(
            help="The predictor.onnx of a run, or the folder of the run; predictor_all.onnx by its "
            "path alone.",
            # While options are read: the command would import ONNX Runtime first.
            callback=lambda path: exported_file(path, PREDICTOR),
        ),
    ],
    images: Annotated[
        list[Path],
        typer.Argument(
            help="Image files, folders or zips of them, globs such as 'photos/*.png'; in any mix."
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--out",
            help="A file whose ending is its format: .parquet or .csv, with the image of each row, "
            "or .npy, the rates alone in the order of the images. [default: CSV on stdout]",
        ),
    ] = None,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Predict the rates of every site for images.

    Example: nrp-onnx predict runs/resnet50 cat.png photos 'more/*.png' -o rates.parquet
    """
    from nrp_onnx.export.found_images import find_images
    from nrp_onnx.export.predict import Predictor
    from nrp_onnx.export.rates_file import check_ending, rates_as_csv, rates_as_json, rates_file
    from nrp_onnx.progress import progress_bar

    if out is not None:
        check_ending(out)
    found = find_images(images)
    opened = Predictor(predictor, device)
    names = [str(image) for image in found]
    with ExitStack() as stack:
        writers = []
        if out is not None:
            writers.append(stack.enter_context(rates_file(out, opened, len(found))))
        if as_json or out is None:
            on_stdout = rates_as_json if as_json else rates_as_csv
            writers.append(stack.enter_context(on_stdout(sys.stdout, opened)))
        advance = stack.enter_context(progress_bar("Predicting", len(found)))
        done = 0
        for block in opened.blocks(found):
            for write in writers:
                write(names[done : done + len(block)], block)
            done += len(block)
            advance(len(block))
    if out is not None and not as_json:
        print(f"{len(found)} images, {len(opened.sites)} sites, in {opened.units}: {out}")
