"""Writes BrainIO files as Brain-Score publishes them: a netCDF-4 assembly, a table, a zip.

The layout is that of the netCDF library: each dimension is a dimension scale without numbers, each
variable names its dimensions by references to the scales, texts have variable length.
"""

import csv
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from nrp_onnx.recordings import Recordings

#: (coordinate values) by name, for each dimension.
Coordinates = Mapping[str, Mapping[str, Any]]
_TEXT = h5py.string_dtype()


def write_assembly(
    path: Path,
    responses: Callable[[slice], np.ndarray],
    coordinates: Coordinates,
    *,
    name: str = "dicarlo.MajajHong2015.public",
    dims: Sequence[str] = ("neuroid", "presentation", "time_bin"),
    dtype: str = "<f4",
    fixed_text: Sequence[str] = (),
    attach: bool = True,
    step: int = 32,
    **storage: Any,
) -> None:
    """Write an assembly in the order of ``dims``, some rows of the first at a time.

    Args:
        responses: gives the responses of a slice of the first dimension, of the shape of the rest.
        coordinates: for each dimension of ``dims`` its coordinates, one of them at least.
        fixed_text: coordinates to write as arrays of characters rather than as texts.
        attach: write the references from variables to dimensions (DIMENSION_LIST).
        storage: further arguments of h5py's create_dataset for the responses, such as chunks.
    """
    with h5py.File(path, "w", libver=("earliest", "v108")) as file:
        file.attrs["_NCProperties"] = np.bytes_("version=2,netcdf=4.7.4,hdf5=1.12.0,")
        for number, dim in enumerate(dims):
            size = len(next(iter(coordinates[dim].values())))
            _dimension(file, dim, size, number)
        data = file.create_dataset(
            name,
            [file[dim].shape[0] for dim in dims],
            dtype,
            fillvalue=np.nan if dtype[1] == "f" else None,
            **storage,
        )
        for start in range(0, data.shape[0], step):
            rows = slice(start, min(start + step, data.shape[0]))
            data[rows] = responses(rows)
        data.attrs["coordinates"] = np.bytes_(
            " ".join(coordinate for dim in dims for coordinate in coordinates[dim])
        )
        if dtype[1] == "f":
            data.attrs["_FillValue"] = np.array([np.nan], dtype)
        data.attrs["_Netcdf4Coordinates"] = np.arange(len(dims), dtype=np.int32)
        if attach:
            _attach(data, [file[dim] for dim in dims])
        for dim in dims:
            for coordinate, values in coordinates[dim].items():
                written = _coordinate(file, coordinate, values, coordinate in fixed_text)
                scales = [file[dim]]
                if written.ndim == 2:
                    length = f"string{written.shape[1]}"
                    if length not in file:
                        number = sum("_Netcdf4Dimid" in item.attrs for item in file.values())
                        _dimension(file, length, written.shape[1], number)
                    scales.append(file[length])
                if attach:
                    _attach(written, scales)
                else:
                    numbers = [scale.attrs["_Netcdf4Dimid"] for scale in scales]
                    written.attrs["_Netcdf4Coordinates"] = np.array(numbers, np.int32)


def write_stimulus_set(table: Path, archive: Path, recordings: Recordings, id_name: str) -> None:
    """Write the table and the zip of images of some recordings; files are named by their ids."""
    with table.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([id_name, "filename", *recordings.stimulus_labels])
        for place, (name, path) in enumerate(
            zip(recordings.stimulus_ids, recordings.stimulus_paths, strict=True)
        ):
            labels = [values[place] for values in recordings.stimulus_labels.values()]
            writer.writerow([name, f"{name}{path.suffix}", *labels])
    with zipfile.ZipFile(archive, "w") as images:
        for name, path in zip(recordings.stimulus_ids, recordings.stimulus_paths, strict=True):
            images.write(path, f"{name}{path.suffix}")


def write_brainio(
    folder: Path, recordings: Recordings, id_name: str = "image_id"
) -> tuple[Path, Path, Path]:
    """Write recordings as the three files of a BrainIO set, in the public assembly's layout.

    Returns:
        The assembly, the table of stimuli, the zip of images.
    """
    folder.mkdir(parents=True, exist_ok=True)
    assembly = folder / "assy_dicarlo_MajajHong2015_public.nc"
    table, archive = folder / "stimulus_hvm-public.csv", folder / "stimulus_hvm-public.zip"
    start, end = recordings.time_window_ms or (70.0, 170.0)
    shown = [recordings.stimulus_ids[place] for place in recordings.presentation_stimulus]
    write_assembly(
        assembly,
        lambda rows: recordings.responses.T[rows, :, None],
        {
            "neuroid": {
                "neuroid_id": recordings.site_ids,
                "region": recordings.regions,
                **recordings.site_labels,
            },
            "presentation": {id_name: shown, "repetition": recordings.repetition.astype("<i8")},
            "time_bin": {
                "time_bin_start": np.array([start], "<i8"),
                "time_bin_end": np.array([end], "<i8"),
            },
        },
    )
    write_stimulus_set(table, archive, recordings, id_name)
    return assembly, table, archive


def _dimension(file: h5py.File, name: str, size: int, number: int) -> None:
    scale = file.create_dataset(name, (size,), ">f4")
    scale.make_scale(f"This is a netCDF dimension but not a netCDF variable.{size:>10}")
    scale.attrs["_Netcdf4Dimid"] = np.int32(number)


def _coordinate(file: h5py.File, name: str, values: Any, fixed: bool) -> h5py.Dataset:
    values = np.asarray(values)
    if values.dtype.kind not in "UO":
        return file.create_dataset(name, data=values)
    if not fixed:
        return file.create_dataset(name, data=values.astype(object), dtype=_TEXT)
    encoded = np.char.encode(values.astype(str), "utf-8")
    characters = encoded.reshape(-1, 1).view("S1")
    return file.create_dataset(name, data=characters)


def _attach(data: h5py.Dataset, scales: Sequence[h5py.Dataset]) -> None:
    for axis, scale in zip(data.dims, scales, strict=True):
        axis.attach_scale(scale)
