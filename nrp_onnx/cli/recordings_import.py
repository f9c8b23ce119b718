"""The command nrp-onnx recordings import: files of any format that an importer knows."""

from pathlib import Path
from typing import Annotated, Any

import typer

from nrp_onnx.errors import OptionError


def import_command(
    out: Annotated[Path, typer.Option("--out", "-o", help="The new recordings folder.")],
    paths: Annotated[
        list[Path] | None,
        typer.Argument(
            help="What to import: a file or folder of a known format, or IMAGES RESPONSES with "
            "--axes; images are a folder, a zip, FILE.h5[:KEY] or FILE.parquet.",
            show_default=False,
        ),
    ] = None,
    format: Annotated[
        str | None,
        typer.Option(help="The format of PATH, as tvsd. [default: what it is found to be]"),
    ] = None,
    axes: Annotated[
        str | None,
        typer.Option(help="Axes of an array in order: site, stimulus and, if any, repetition."),
    ] = None,
    images: Annotated[
        Path | None,
        typer.Option(help="A folder or a zip of images; of NSD, nsd_stimuli.hdf5."),
    ] = None,
    stimuli: Annotated[
        Path | None,
        typer.Option(help="CSV of stimuli: ids, file names, labels; of arrays in the axis' order."),
    ] = None,
    region: Annotated[str | None, typer.Option(help="The region of all sites, as V4.")] = None,
    sites: Annotated[
        Path | None,
        typer.Option(help="Instead of --region: CSV with site_id, region, in the sites' order."),
    ] = None,
    key: Annotated[str | None, typer.Option(help="The array in a file of several.")] = None,
    session: Annotated[
        str | None, typer.Option(help="Of a folder of several sessions, as 190925.")
    ] = None,
    animal: Annotated[
        str | None, typer.Option(help="Where the files do not tell, as F or N of TVSD.")
    ] = None,
    test: Annotated[
        Path | None,
        typer.Option(help="Of BrainIO: the assembly of the test stimuli; PATH is for training."),
    ] = None,
    window: Annotated[
        tuple[float, float] | None,
        typer.Option(help="Of BrainIO and NWB: average the time within, in ms after onset."),
    ] = None,
    rois: Annotated[
        str | None, typer.Option(help="Masks of fMRI with commas; the first that fits counts.")
    ] = None,
    roi_names: Annotated[
        Path | None, typer.Option(help="Of Algonauts: JSON of region names by number by mask.")
    ] = None,
    splits: Annotated[
        Path | None, typer.Option(help="Of LAION-fMRI: a JSON file of splits, or a folder of them.")
    ] = None,
    min_reliability: Annotated[
        float | None,
        typer.Option(help="Leave out sites that are less reliable. [default: all are kept]"),
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="Of the recordings; by default that of the files.")
    ] = None,
    units: Annotated[
        str | None, typer.Option(help="Of the responses, as 'spikes'. [default: unknown]")
    ] = None,
    normalised: Annotated[
        bool, typer.Option("--normalised", help="The responses are relative to a blank stimulus.")
    ] = False,
    time_window_ms: Annotated[
        tuple[float, float] | None,
        typer.Option(help="Of arrays: when the counts were taken after stimulus onset, in ms."),
    ] = None,
    visual_degrees: Annotated[
        float | None,
        typer.Option(help="That an image filled when it was shown. [default: the format's]"),
    ] = None,
    licence: Annotated[str | None, typer.Option(help="Of the data.")] = None,
    citation: Annotated[
        str | None, typer.Option(help="What to cite. [default: the format's]")
    ] = None,
    simulated: Annotated[
        bool, typer.Option("--simulated", help="The responses come from a model.")
    ] = False,
) -> None:
    """Make a recordings folder from an array and images, or from files of a known format.

    Example: nrp-onnx recordings import images.zip responses.npy --axes site,stimulus,repetition
    --region V4 --stimuli stimuli.csv --units spikes -o my_recordings

    nrp-onnx recordings import monkeyF --images THINGS/object_images -o tvsd_f

    nrp-onnx recordings import assembly.nc --stimuli stimuli.csv --images images.zip
    --window 70 170 -o my_recordings
    """
    from nrp_onnx.recordings import import_path

    paths = paths or []
    if axes is not None and len(paths) == 2 and images is None:
        images, paths = paths[0], paths[1:]
    if len(paths) != 1:
        raise OptionError(
            "it is not clear what to import",
            where="recordings import",
            expected="one PATH, or IMAGES RESPONSES with --axes",
            found=" ".join(map(str, paths)) or "nothing",
            fix="Import several one by one, then: nrp-onnx recordings merge." if paths else None,
        )
    facts = {
        "name": name, "licence": licence, "citation": citation, "visual_degrees": visual_degrees,
    }  # fmt: skip
    options: dict[str, Any] = {
        "axes": _split(axes), "images": images, "stimuli": stimuli, "region": region,
        "sites": sites, "key": key, "session": session, "animal": animal, "test": test,
        "window": window, "rois": _split(rois), "roi_names": roi_names, "splits": splits,
        "units": units, "normalised": normalised or None, "time_window_ms": time_window_ms,
        "simulated": simulated or None,
    }  # fmt: skip
    recordings = import_path(
        paths[0],
        out,
        format="arrays" if format is None and axes is not None else format,
        min_reliability=min_reliability,
        facts={fact: value for fact, value in facts.items() if value is not None},
        **{option: value for option, value in options.items() if value is not None},
    )
    typer.echo(f"{out}: {recordings.n_stimuli} stimuli, {recordings.n_sites} sites")


def _split(text: str | None) -> list[str] | None:
    return None if text is None else [part.strip() for part in text.split(",")]
