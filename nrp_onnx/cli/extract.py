"""The commands nrp-onnx extract and nrp-onnx doctor."""

import json
from pathlib import Path
from typing import Annotated

import typer

from nrp_onnx.cli.options import (
    AsJson,
    Device,
    Engine,
    Layers,
    Model,
    Preprocess,
    RayAddress,
    Reduce,
    SkipBadStimuli,
)
from nrp_onnx.errors import OptionError


def extract_command(
    model: Model,
    out: Annotated[
        str, typer.Option("-o", "--out", help="Folder of the Parquet files: a path, or a URI.")
    ],
    images: Annotated[
        Path | None,
        typer.Option(
            help="A folder of images, whose ids are their paths in it; or FILE.h5[:KEY] or FILE.parquet."
        ),
    ] = None,
    recordings: Annotated[
        str | None,
        typer.Option(help="A recordings folder, a name from `recordings list`, or simulated."),
    ] = None,
    layers: Layers = "auto",
    reduce: Reduce = "auto",
    preprocess: Preprocess = None,
    device: Device = "auto",
    skip_bad_stimuli: SkipBadStimuli = False,
    overwrite: Annotated[
        bool, typer.Option(help="Take the place of other activations in the folder.")
    ] = False,
    engine: Engine = "local",
    ray_address: RayAddress = None,
    as_json: AsJson = False,
) -> None:
    """Write the activations of images, one Parquet file a layer; killed, it goes on when run again.

    Example: nrp-onnx extract resnet50.onnx --images photos --reduce avgpool:2 -o activations
    """
    from nrp_onnx.api import extract_with
    from nrp_onnx.notes import Notes
    from nrp_onnx.recordings import open_recordings
    from nrp_onnx.scoring.options import ExtractOptions

    if (images is None) == (recordings is None):
        raise OptionError(
            "it is not clear what to extract from",
            where="extract",
            expected="either --images or --recordings",
            found="neither" if images is None else "both",
        )
    notes = Notes()
    options = ExtractOptions(
        layers=layers,
        reduce=reduce,
        preprocess=preprocess,
        device=device,
        skip_bad_stimuli=skip_bad_stimuli,
        overwrite=overwrite,
        engine=engine,
        ray_address=ray_address,
    )
    stimuli = open_recordings(recordings, notes) if images is None else images
    found = extract_with(model, stimuli, out, options, notes)
    if as_json:
        print(json.dumps(found.to_json(), indent=2, ensure_ascii=False))
        return
    for layer in found.values():
        shape = " x ".join(map(str, layer.shape))
        print(f"{layer.name}: {shape}, {layer.reduction}: {found.folder}/{layer.path.name}")
    left_out = len(found.skipped_stimuli)
    print(f"{len(found.stimulus_ids)} images" + (f", {left_out} left out" if left_out else ""))


def doctor_command(
    as_json: AsJson = False,
) -> None:
    """Print what is here: versions, devices and why one does not work, cores, memory, disk.

    Example: nrp-onnx doctor --json
    """
    from nrp_onnx.doctor import examine

    found = examine()
    if as_json:
        print(json.dumps(found, indent=2))
        return
    for heading, facts in found.items():
        print(heading)
        for name, value in facts.items():
            print(f"  {name}: {value}")
