"""BrainIO files in the public assembly's layout come back as the recordings that they hold."""

import csv
import logging
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest
import xarray
from PIL import Image

from nrp_onnx.recordings import Recordings, import_brainio, save_recordings, validate_recordings
from nrp_onnx.recordings.importers import assembly as assembly_module
from tests.recordings.brainio_file import write_assembly, write_brainio, write_stimulus_set

START, END = np.array([0, 50, 100, 150]), np.array([50, 100, 150, 200])


def by_name(recordings: Recordings) -> dict[tuple[str, int, str], float]:
    """Each response that is there by stimulus, repetition and site."""
    return {
        (recordings.stimulus_ids[stimulus], int(repetition), site): float(value)
        for stimulus, repetition, row in zip(
            recordings.presentation_stimulus,
            recordings.repetition,
            recordings.responses,
            strict=True,
        )
        for site, value in zip(recordings.site_ids, row, strict=True)
        if not np.isnan(value)
    }


def binned(recordings: Recordings) -> np.ndarray:
    """Four time bins around the responses, float64 (n_presentations, n_sites, 4)."""
    bins: np.ndarray = recordings.responses[:, :, None] + np.array([-7.0, -1, 2, 11])
    return bins


def coordinates(recordings: Recordings) -> dict[str, dict[str, object]]:
    shown = [recordings.stimulus_ids[place] for place in recordings.presentation_stimulus]
    return {
        "neuroid": {"neuroid_id": recordings.site_ids, "region": recordings.regions},
        "presentation": {"stimulus_id": shown, "repetition": recordings.repetition},
        "time_bin": {"time_bin_start": START, "time_bin_end": END},
    }


@pytest.mark.parametrize("id_name", ["image_id", "stimulus_id"])
def test_what_was_written_is_read(recordings, tmp_path, id_name):
    files = write_brainio(tmp_path / "b", recordings, id_name)
    read = import_brainio(*files, tmp_path / "out", units="spikes", simulated=True)
    assert by_name(read) == by_name(recordings)
    assert read.stimulus_ids == recordings.stimulus_ids
    assert read.stimulus_labels == recordings.stimulus_labels
    assert read.regions == recordings.regions
    assert read.site_labels == {"animal": ("one", "two", "two")}
    assert read.time_window_ms == (70, 170)
    assert (read.units, read.simulated) == ("spikes", True)
    assert read.name == "assy_dicarlo_MajajHong2015_public"
    np.testing.assert_allclose(read.averages, recordings.averages)
    for ours, theirs in zip(read.stimulus_paths, recordings.stimulus_paths, strict=True):
        assert ours.read_bytes() == theirs.read_bytes()
    assert validate_recordings(tmp_path / "out") == []


def test_simulated_recordings_go_through_such_a_file(simulated, tmp_path):
    files = write_brainio(tmp_path / "b", simulated)
    read = import_brainio(*files, tmp_path / "out", units=simulated.units, normalised=True)
    again = save_recordings(simulated, tmp_path / "again")
    assert read.fingerprint == again.fingerprint


def test_another_program_reads_the_same_from_the_file(recordings, tmp_path):
    assembly, *_ = write_brainio(tmp_path / "b", recordings)
    with xarray.open_dataarray(assembly, engine="h5netcdf") as opened:
        assert opened.name == "dicarlo.MajajHong2015.public"
        assert opened.sizes == {"neuroid": 3, "presentation": 12, "time_bin": 1}
        assert list(opened["region"].values) == ["V4", "IT", "V4"]
        assert opened["region"].dims == ("neuroid",)
        assert opened["time_bin_end"].values.tolist() == [170]
        np.testing.assert_array_equal(opened.values[:, :, 0].T, recordings.responses)


def test_a_file_of_another_program_is_read(recordings, tmp_path):
    """Written by xarray, presentations first, responses as float64 and compressed in chunks."""
    named = coordinates(recordings)
    array = xarray.DataArray(
        recordings.responses[:, :, None].astype(float),
        dims=("presentation", "neuroid", "time_bin"),
        coords={
            name: (dim, np.asarray(values)[:1] if dim == "time_bin" else np.asarray(values))
            for dim, columns in named.items()
            for name, values in columns.items()
        },
    )
    array.to_netcdf(
        tmp_path / "a.nc",
        engine="h5netcdf",
        encoding={"__xarray_dataarray_variable__": {"zlib": True, "chunksizes": (5, 2, 1)}},
    )
    _, table, images = write_brainio(tmp_path / "b", recordings)
    read = import_brainio(tmp_path / "a.nc", table, images, tmp_path / "out")
    assert by_name(read) == by_name(recordings)
    assert read.time_window_ms == (0, 50)


@pytest.mark.parametrize(
    "dims",
    [
        ("neuroid", "presentation", "time_bin"),
        ("time_bin", "neuroid", "presentation"),
        ("presentation", "time_bin", "neuroid"),
    ],
)
@pytest.mark.parametrize("chunks", [None, (2, 3, 2)])
def test_a_window_averages_its_time_bins(recordings, tmp_path, monkeypatch, caplog, dims, chunks):
    monkeypatch.setattr(assembly_module, "_BLOCK_BYTES", 1)  # every row or chunk is a block
    order = [("presentation", "neuroid", "time_bin").index(dim) for dim in dims]
    data = binned(recordings).transpose(order)
    write_assembly(
        tmp_path / "a.nc", lambda rows: data[rows], coordinates(recordings), dims=dims,
        dtype="<f8", chunks=chunks,
    )  # fmt: skip
    _, table, images = write_brainio(tmp_path / "b", recordings)
    with caplog.at_level(logging.WARNING, "nrp_onnx"):
        read = import_brainio(tmp_path / "a.nc", table, images, tmp_path / "out", window=(50, 170))
    expected = {key: value + 0.5 for key, value in by_name(recordings).items()}
    assert by_name(read) == pytest.approx(expected, rel=1e-6)
    assert read.time_window_ms == (50, 150)
    assert "the mean of 2 time bins, 50 to 150 ms" in caplog.text


def test_texts_of_fixed_length_and_numbered_dimensions(recordings, tmp_path):
    named = coordinates(recordings)
    named["time_bin"] = {"time_bin_start": START[:1], "time_bin_end": END[:1]}
    write_assembly(
        tmp_path / "a.nc", lambda rows: recordings.responses.T[rows, :, None], named,
        fixed_text=("stimulus_id", "region"), attach=False,
    )  # fmt: skip
    with h5py.File(tmp_path / "a.nc") as file:
        assert file["region"].dtype == "S1"
        assert "DIMENSION_LIST" not in file["dicarlo.MajajHong2015.public"].attrs
    _, table, images = write_brainio(tmp_path / "b", recordings)
    read = import_brainio(tmp_path / "a.nc", table, images, tmp_path / "out")
    assert by_name(read) == by_name(recordings)
    assert read.regions == recordings.regions


def test_a_multi_index_stored_by_gathering(recordings, tmp_path):
    """neuroid counts through (region, neuroid_id), as the CF convention stores a multi-index."""
    named = coordinates(recordings)
    named["neuroid"] = {"channel": np.arange(3)}
    named["time_bin"] = {"time_bin_start": START[:1], "time_bin_end": END[:1]}
    write_assembly(tmp_path / "a.nc", lambda rows: recordings.responses.T[rows, :, None], named)
    with h5py.File(tmp_path / "a.nc", "a") as file:
        for level, values in (("region", ["IT", "V4"]), ("neuroid_id", ["a", "b", "c"])):
            file.create_dataset(level, data=values, dtype=h5py.string_dtype()).make_scale(level)
        file["neuroid"][...] = [3, 1, 5]  # (V4, a), (IT, b), (V4, c)
        file["neuroid"].attrs["compress"] = "region neuroid_id"
        file["neuroid"].attrs["NAME"] = np.bytes_("neuroid")
    _, table, images = write_brainio(tmp_path / "b", recordings)
    read = import_brainio(tmp_path / "a.nc", table, images, tmp_path / "out")
    assert (read.site_ids, read.regions) == (("a", "b", "c"), ("V4", "IT", "V4"))
    assert by_name(read) == by_name(recordings)


def test_fill_values_are_missing(recordings, tmp_path):
    counts = np.arange(36, dtype="<i2").reshape(3, 12)
    named = coordinates(recordings)
    named.pop("time_bin")
    write_assembly(
        tmp_path / "a.nc", lambda rows: counts[rows], named,
        dims=("neuroid", "presentation"), dtype="<i2",
    )  # fmt: skip
    with h5py.File(tmp_path / "a.nc", "a") as file:
        file["dicarlo.MajajHong2015.public"].attrs["_FillValue"] = np.array([7], "<i2")
    _, table, images = write_brainio(tmp_path / "b", recordings)
    read = import_brainio(tmp_path / "a.nc", table, images, tmp_path / "out")
    assert np.isnan(read.responses).sum() == 1
    assert set(by_name(read).values()) == set(range(36)) - {7}
    assert read.time_window_ms is None


def test_repetitions_are_counted_where_the_file_has_none(recordings, tmp_path, caplog):
    named = coordinates(recordings)
    named.pop("time_bin")
    del named["presentation"]["repetition"]
    write_assembly(
        tmp_path / "a.nc", lambda rows: recordings.responses.T[rows], named,
        dims=("neuroid", "presentation"),
    )  # fmt: skip
    _, table, images = write_brainio(tmp_path / "b", recordings)
    with caplog.at_level(logging.WARNING, "nrp_onnx"):
        read = import_brainio(tmp_path / "a.nc", table, images, tmp_path / "out")
    assert "a.nc has no repetition: they are counted for each stimulus" in caplog.text
    for stimulus in range(4):
        rows = np.flatnonzero(read.presentation_stimulus == stimulus)
        assert read.repetition[rows].tolist() == [0, 1, 2]
    np.testing.assert_allclose(read.averages, recordings.averages)


def test_stimuli_and_presentations_without_responses_are_left_out_and_counted(
    changed, tmp_path, caplog
):
    recordings = changed()
    responses = recordings.responses.copy()
    owl = recordings.presentation_stimulus == 2
    responses[owl] = np.nan
    responses[np.flatnonzero(recordings.presentation_stimulus == 0)[0]] = np.nan
    assembly, table, images = write_brainio(tmp_path / "b", changed(responses=responses))
    with table.open("a") as file:
        file.write("yak,yak.png,mammal\n")  # never shown, and not in the zip
    with caplog.at_level(logging.WARNING, "nrp_onnx"):
        read = import_brainio(assembly, table, images, tmp_path / "out")
    assert read.stimulus_ids == ("cat", "dog", "eel")
    assert read.stimulus_labels == {"object_name": ("mammal", "mammal", "fish")}
    assert len(read.responses) == 12 - 3 - 1
    assert "4 presentations of assy_dicarlo_MajajHong2015_public.nc without any" in caplog.text
    assert "2 of 5 stimuli of stimulus_hvm-public.csv have no responses" in caplog.text
    assert by_name(read) == by_name(changed(responses=responses))
    assert sorted(path.name for path in (tmp_path / "out" / "stimuli").iterdir()) == [
        "cat.png", "dog.png", "eel.png",
    ]  # fmt: skip


def rewrite(table: Path, columns: dict[str, str]) -> None:
    """A table with columns of Python formats of the id, stimulus_id replaced too."""
    rows = list(csv.DictReader(table.open()))
    with table.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(
            [form.format(**row, place=place) for form in columns.values()]
            for place, row in enumerate(rows)
        )


@pytest.mark.parametrize(
    ("columns", "prefix", "labels"),
    [
        # The column filename does not name the files of the zip, image_file_name does.
        (
            {"": "{place}", "image_id": "{image_id}", "filename": "rendered_{place}.png",
             "image_file_name": "{image_id}.png"},
            "",
            {"image_file_name"},
        ),
        # No column of file names.
        ({"image_id": "{image_id}", "size": "{place}"}, "", {"size"}),
        # The zip has folders, the table has not.
        ({"image_id": "{image_id}", "filename": "{image_id}.png"}, "a/b/", set()),
        # The table has folders, the zip has not; both kinds of ids, which differ.
        (
            {"stimulus_id": "{place}", "image_id": "{image_id}",
             "filename": "stimuli/{image_id}.png"},
            "",
            set(),
        ),
    ],
)  # fmt: skip
def test_images_are_found_by_the_names_that_tables_have(
    recordings, tmp_path, columns, prefix, labels
):
    assembly, table, images = write_brainio(tmp_path / "b", recordings)
    rewrite(table, columns)
    with zipfile.ZipFile(images, "w") as archive:
        for path in recordings.stimulus_paths:
            archive.write(path, prefix + path.name)
        archive.writestr("readme.txt", "files beside the images do not matter")
    read = import_brainio(assembly, table, images, tmp_path / "out")
    assert read.stimulus_ids == recordings.stimulus_ids
    assert set(read.stimulus_labels) == labels
    for ours, theirs in zip(read.stimulus_paths, recordings.stimulus_paths, strict=True):
        with Image.open(ours) as image, Image.open(theirs) as same:
            assert image.tobytes() == same.tobytes()


def test_the_toy_assembly_with_the_layout_of_brain_score_opens(shared, recordings, tmp_path):
    """It says nothing of regions and repetitions, and has no stimulus set of its own."""
    toy = shared / "data" / "brainio_toy" / "assy_test_package_assembly.nc"
    table, images = write_toy_stimuli(tmp_path, recordings, 6)
    read = import_brainio(toy, table, images, tmp_path / "out", region="IT")
    assert read.site_ids == ("A", "B", "C")
    assert read.site_labels == {"neuroid_type": ("bar", "bar", "bar")}
    assert read.time_window_ms == (0, 10)
    with h5py.File(toy) as file:
        expected = file["__xarray_dataarray_variable__"][:, :, 0]
    np.testing.assert_array_equal(read.responses, expected)


def test_the_toy_assembly_without_time_bins_opens(shared, recordings, tmp_path):
    toy = shared / "data" / "brainio_toy" / "assy_test_TestMe.nc"
    table, images = write_toy_stimuli(tmp_path, recordings, 10)
    read = import_brainio(toy, table, images, tmp_path / "out", region="IT")
    assert read.site_ids == ("alpha", "beta", "gamma")
    assert read.site_labels == {"foo": ("1", "2", "5")}
    assert read.time_window_ms is None
    with xarray.open_dataset(toy, engine="h5netcdf") as opened:
        assert set(read.stimulus_ids) == set(opened["stimulus_id"].values.tolist())
        for name in read.stimulus_ids:
            shown = opened["stimulus_id"].values == name
            expected = opened["data"].values[shown].mean(axis=0)
            np.testing.assert_allclose(
                read.averages[read.stimulus_ids.index(name)], expected, rtol=1e-6
            )


def write_toy_stimuli(folder: Path, recordings: Recordings, n: int) -> tuple[Path, Path]:
    """A table and a zip for stimuli n0, n1, ..., which the toy assemblies lack."""
    table, images = folder / "toy.csv", folder / "toy.zip"
    names = [f"n{place}" for place in range(n)]
    paths = recordings.stimulus_paths
    table.write_text("\n".join(["stimulus_id,filename", *(f"{i},{i}.png" for i in names)]) + "\n")
    with zipfile.ZipFile(images, "w") as archive:
        for place, name in enumerate(names):
            archive.write(paths[place % len(paths)], f"{name}.png")
    return table, images


def test_the_stimulus_set_writer_names_files_by_ids(recordings, tmp_path):
    write_stimulus_set(tmp_path / "t.csv", tmp_path / "i.zip", recordings, "image_id")
    rows = list(csv.DictReader((tmp_path / "t.csv").open()))
    with zipfile.ZipFile(tmp_path / "i.zip") as archive:
        assert archive.namelist() == [row["filename"] for row in rows]
