"""The command nrp-onnx recordings import: arrays, BrainIO files, Algonauts folders."""

from pathlib import Path
from typing import Annotated, Any

import typer

from nrp_onnx.errors import OptionError

#: The options that an import of each kind may have, beside those that all have, and those it needs.
_ALL = {"--out", "--name", "--licence", "--citation", "--visual-degrees"}
_ALLOWED = {
    "arrays": {
        "IMAGES", "RESPONSES", "--axes", "--region", "--sites", "--stimuli", "--key", "--units",
        "--normalised", "--time-window-ms", "--simulated",
    },
    "--brainio": {
        "--brainio", "--stimuli", "--images", "--window", "--region", "--key", "--units",
        "--normalised", "--simulated",
    },
    "--algonauts": {"--algonauts", "--rois", "--roi-names"},
}  # fmt: skip
_NEEDED = {
    "arrays": ("IMAGES", "RESPONSES", "--axes"),
    "--brainio": ("--stimuli", "--images"),
    "--algonauts": (),
}


def import_command(
    out: Annotated[Path, typer.Option("--out", "-o", help="The new recordings folder.")],
    images: Annotated[
        Path | None,
        typer.Argument(
            help="A folder or a zip of images, FILE.h5[:KEY] or FILE.parquet.", show_default=False
        ),
    ] = None,
    responses: Annotated[
        Path | None,
        typer.Argument(help="Responses: .npy, .npz, .mat, .h5 or .csv.", show_default=False),
    ] = None,
    axes: Annotated[
        str | None,
        typer.Option(help="Axes of RESPONSES in order: site, stimulus and, if any, repetition."),
    ] = None,
    brainio: Annotated[
        Path | None,
        typer.Option(help="A BrainIO assembly, .nc, with --stimuli and --images."),
    ] = None,
    images_of_brainio: Annotated[
        Path | None, typer.Option("--images", help="With --brainio: a folder or a zip of images.")
    ] = None,
    window: Annotated[
        tuple[float, float] | None,
        typer.Option(help="With --brainio: average the time bins within, in ms."),
    ] = None,
    algonauts: Annotated[
        Path | None, typer.Option(help="A subject's folder of Algonauts 2023, as subj01.")
    ] = None,
    rois: Annotated[
        str | None,
        typer.Option(help="With --algonauts: masks with commas; the first that fits counts."),
    ] = None,
    roi_names: Annotated[
        Path | None, typer.Option(help="With --algonauts: JSON of region names by number by mask.")
    ] = None,
    stimuli: Annotated[
        Path | None,
        typer.Option(help="CSV of stimuli: ids, file names, labels; of arrays in the axis' order."),
    ] = None,
    region: Annotated[str | None, typer.Option(help="The region of all sites, as V4.")] = None,
    sites: Annotated[
        Path | None,
        typer.Option(help="Instead of --region: CSV with site_id, region, in the axis' order."),
    ] = None,
    key: Annotated[str | None, typer.Option(help="The array in a file of several.")] = None,
    name: Annotated[
        str | None, typer.Option(help="Of the recordings; by default that of the responses.")
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
        typer.Option(help="That an image filled when it was shown. [default: unknown; NSD's 8.4]"),
    ] = None,
    licence: Annotated[str | None, typer.Option(help="Of the data.")] = None,
    citation: Annotated[str | None, typer.Option(help="What to cite.")] = None,
    simulated: Annotated[
        bool, typer.Option("--simulated", help="The responses come from a model.")
    ] = False,
) -> None:
    """Make a recordings folder: from arrays, a BrainIO assembly, or an Algonauts 2023 folder.

    Example: nrp-onnx recordings import images.zip responses.npy --axes site,stimulus,repetition
    --region V4 --stimuli stimuli.csv --units spikes -o my_recordings

    nrp-onnx recordings import --brainio assembly.nc --stimuli stimuli.csv --images images.zip
    --window 70 170 -o my_recordings

    nrp-onnx recordings import --algonauts subj01 -o my_recordings
    """
    from nrp_onnx.recordings import import_algonauts, import_arrays, import_brainio

    options: dict[str, Any] = {
        "IMAGES": images, "RESPONSES": responses, "--axes": axes, "--brainio": brainio,
        "--images": images_of_brainio, "--window": window, "--algonauts": algonauts,
        "--rois": rois, "--roi-names": roi_names, "--stimuli": stimuli, "--region": region,
        "--sites": sites, "--key": key, "--units": units, "--normalised": normalised or None,
        "--time-window-ms": time_window_ms, "--simulated": simulated or None,
    }  # fmt: skip
    _check({option for option, value in options.items() if value is not None})
    facts: dict[str, Any] = {"name": name, "licence": licence}
    # The Algonauts importer knows what to cite, and how large the images were.
    if citation is not None or algonauts is None:
        facts["citation"] = citation
    if visual_degrees is not None:
        facts["visual_degrees"] = visual_degrees
    if algonauts is not None:
        recordings = import_algonauts(
            algonauts, out, rois=_split(rois) if rois else None, roi_names=roi_names, **facts
        )
    else:
        facts |= {
            "region": region,
            "key": key,
            "units": units or "unknown",
            "normalised": normalised,
            "simulated": simulated,
        }
        if brainio is not None and stimuli is not None and images_of_brainio is not None:
            recordings = import_brainio(
                brainio, stimuli, images_of_brainio, out, window=window, **facts
            )
        else:
            assert images is not None
            assert responses is not None
            recordings = import_arrays(
                images,
                responses,
                out,
                axes=_split(axes or ""),
                sites=sites,
                stimuli=stimuli,
                time_window_ms=time_window_ms,
                **facts,
            )
    typer.echo(f"{out}: {recordings.n_stimuli} stimuli, {recordings.n_sites} sites")


def _check(given: set[str]) -> None:
    """Refuse options that do not belong together, and name those that are missing.

    Raises:
        OptionError: in either case.
    """
    kinds = [kind for kind in ("--brainio", "--algonauts") if kind in given]
    if len(kinds) > 1:
        raise OptionError(
            "there are two sources of recordings",
            where=", ".join(kinds),
            expected="one",
            found="both",
        )
    kind = kinds[0] if kinds else "arrays"
    if not given & {"IMAGES", "RESPONSES", *kinds}:
        raise OptionError(
            "nothing is named to import",
            where="recordings import",
            expected="IMAGES RESPONSES --axes, --brainio or --algonauts",
            found=", ".join(sorted(given)) or "none",
        )
    title = "IMAGES RESPONSES" if kind == "arrays" else kind
    if extra := sorted(given - _ALLOWED[kind]):
        raise OptionError(
            f"these do not go with {title}",
            where=", ".join(extra),
            expected=f"only {', '.join(sorted(_ALLOWED[kind] | _ALL))}",
        )
    if missing := [option for option in _NEEDED[kind] if option not in given]:
        raise OptionError(
            f"something is missing beside {title}",
            where=missing[0],
            expected=" ".join(_NEEDED[kind]),
            found=", ".join(sorted(given)),
        )


def _split(text: str) -> list[str]:
    return [part.strip() for part in text.split(",")]
