"""BrainIO files that cannot be used are refused in one line, and nothing is written."""

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from nrp_onnx.errors import NrpOnnxError, OptionError, RecordingsError
from nrp_onnx.recordings import import_brainio
from tests.command_line import assert_user_error, nrp_onnx
from tests.recordings.brainio_file import write_assembly, write_brainio

NC, CSV, ZIP = (
    "assy_dicarlo_MajajHong2015_public.nc",
    "stimulus_hvm-public.csv",
    "stimulus_hvm-public.zip",
)
DATA = "dicarlo.MajajHong2015.public"
Damage = Callable[[Path], object]


def inside(change: Callable[[h5py.File], object]) -> Damage:
    def damage(folder: Path) -> None:
        with h5py.File(folder / NC, "a") as file:
            change(file)

    return damage


def delete(*names: str) -> Damage:
    def change(file: h5py.File) -> None:
        for name in names:
            del file[name]

    return inside(change)


def put(name: str, values: Any) -> Damage:
    def change(file: h5py.File) -> None:
        file[name][...] = values

    return inside(change)


def edit(old: str, new: str) -> Damage:
    def damage(folder: Path) -> None:
        text = (folder / CSV).read_text()
        assert old in text
        (folder / CSV).write_text(text.replace(old, new))

    return damage


def truncate(name: str, share: float) -> Damage:
    def damage(folder: Path) -> None:
        data = (folder / name).read_bytes()
        (folder / name).write_bytes(data[: int(len(data) * share)])

    return damage


def entry(name: str) -> Damage:
    def damage(folder: Path) -> None:
        with zipfile.ZipFile(folder / ZIP, "a") as archive:
            archive.writestr(name, "x")

    return damage


def without_entry(name: str) -> Damage:
    def damage(folder: Path) -> None:
        with zipfile.ZipFile(folder / ZIP) as archive:
            kept = {n: archive.read(n) for n in archive.namelist() if n != name}
        with zipfile.ZipFile(folder / ZIP, "w") as archive:
            for n, data in kept.items():
                archive.writestr(n, data)

    return damage


def write_bins(times: bool) -> Damage:
    """Another assembly, with 8 time bins."""

    def damage(folder: Path) -> None:
        start = np.arange(8) * 10
        bins = {"time_bin_start": start, "time_bin_end": start + 10} if times else {"x": start}
        write_assembly(
            folder / NC,
            lambda rows: np.ones((rows.stop - rows.start, 4, 8), np.float32),
            {
                "neuroid": {"neuroid_id": ["a", "b"], "region": ["V4", "IT"]},
                "presentation": {"stimulus_id": ["cat", "dog", "owl", "eel"]},
                "time_bin": bins,
            },
        )

    return damage


def other_dims(folder: Path) -> None:
    write_assembly(
        folder / NC,
        lambda rows: np.ones((rows.stop - rows.start, 4), np.float32),
        {"voxel": {"voxel_id": ["a", "b"]}, "presentation": {"stimulus_id": list("abcd")}},
        dims=("voxel", "presentation"),
    )


def second_variable(file: h5py.File) -> None:
    data = file.create_dataset("again", data=file[DATA][...])
    for axis, dim in zip(data.dims, ("neuroid", "presentation", "time_bin"), strict=True):
        axis.attach_scale(file[dim])


#: What is done to good files, with which options, and what the one line about it says.
ERRORS: dict[str, tuple[Damage, dict[str, Any], type[Exception], str]] = {
    "no assembly": (
        lambda folder: (folder / NC).unlink(), {}, RecordingsError,
        r"public\.nc: no such file; expected a netCDF-4 file",
    ),
    "a truncated assembly": (
        truncate(NC, 0.6), {}, RecordingsError,
        r"public\.nc: this file cannot be read; expected a whole netCDF-4 \(HDF5\) file; "
        r"found \d+ bytes .*download it again",
    ),
    "the start of an assembly": (
        truncate(NC, 0.01), {}, RecordingsError, r"public\.nc: this file cannot be read",
    ),
    "an assembly that is a web page": (
        lambda folder: (folder / NC).write_text("<html>no such key</html>"), {}, RecordingsError,
        r"public\.nc: this file cannot be read",
    ),
    "classic netCDF": (
        lambda folder: (folder / NC).write_bytes(b"CDF\x01" + bytes(100)), {}, RecordingsError,
        r"public\.nc: this is netCDF of the classic kind; .*nccopy -k nc4",
    ),
    "unknown dimensions": (
        other_dims, {}, RecordingsError,
        r"public\.nc: no variable holds responses; expected numbers over presentation, neuroid and "
        rf"perhaps time_bin; found {DATA} \(voxel, presentation\)",
    ),
    "two variables": (
        inside(second_variable), {}, OptionError,
        rf"2 variables may be the responses; expected one, or --key; found again, {DATA}",
    ),
    "a key that is not there": (
        lambda folder: None, {"key": "rates"}, OptionError,
        rf"--key: the assembly has no such responses; expected one of {DATA}; found 'rates'",
    ),
    "no region": (
        delete("region"), {}, RecordingsError,
        r"does not say where its neuroids are; expected a variable region of the dimension neuroid;"
        r" found animal, neuroid_id\. .*--region V4",
    ),
    "a neuroid twice": (
        put("neuroid_id", ["a", "a", "c"]), {}, RecordingsError,
        r"public\.nc: a site_id comes twice; .*found 'a'",
    ),
    "no ids of stimuli": (
        delete("image_id"), {}, RecordingsError,
        r"does not say which stimuli were presented; expected a variable stimulus_id or image_id",
    ),
    "an infinite response": (
        put(DATA, np.inf), {}, RecordingsError, r"public\.nc: 36 responses are infinite",
    ),
    "no response at all": (
        put(DATA, np.nan), {}, RecordingsError,
        r"public\.nc: the assembly holds no response; .*found 12 presentations to 3 neuroids",
    ),
    "a dead site": (
        inside(lambda file: file[DATA].__setitem__(1, np.nan)), {}, RecordingsError,
        r"public\.nc: 1 of 3 sites have no response; .*found NaN only for 'b'",
    ),
    "time bins without a window": (
        write_bins(times=True), {}, OptionError,
        r"public\.nc: the assembly has 8 time bins; expected a window to average over; found 0 to "
        r"10, 10 to 20, 20 to 30, 30 to 40, \.\.\., 70 to 80 ms\. Name one, as --window 0 80",
    ),
    "a window between time bins": (
        write_bins(times=True), {"window": (12, 28)}, OptionError,
        r"no time bin lies within the window; .*found --window 12 28 for 0 to 10, ",
    ),
    "a window that is not the only bin": (
        lambda folder: None, {"window": (50, 150)}, OptionError,
        r"no time bin lies within the window; .*found --window 50 150 for 70 to 170 ms",
    ),
    "an empty window": (
        lambda folder: None, {"window": (170, 70)}, OptionError,
        r"--window: the window is empty; .*found 170 70",
    ),
    "time bins without times": (
        write_bins(times=False), {}, RecordingsError,
        r"the assembly has 8 time bins without times; expected variables time_bin_start and",
    ),
    "a stimulus that is not in the table": (
        edit("\nowl,", "\nyak,"), {}, RecordingsError,
        r"public\.csv: 1 stimuli of the assembly are not in the table; expected in its column "
        r"image_id each image_id of .*public\.nc; found no 'owl', but 'cat'",
    ),
    "a table without ids": (
        edit("image_id,", "picture,"), {}, RecordingsError,
        r"public\.csv: the table has no ids of stimuli; expected a column stimulus_id or image_id; "
        r"found picture, filename, object_name",
    ),
    "an id twice": (
        edit("\ndog,", "\ncat,"), {}, RecordingsError, r"stimuli of the assembly are not in",
    ),
    "a row twice": (
        lambda folder: (folder / CSV).open("a").write("cat,cat.png,mammal\n"), {}, RecordingsError,
        r"public\.csv: a image_id comes twice; .*found 'cat'",
    ),
    "no table": (
        lambda folder: (folder / CSV).unlink(), {}, RecordingsError, r"public\.csv: no such file",
    ),
    "an image that is not in the zip": (
        without_entry("owl.png"), {}, RecordingsError,
        r"public\.zip: 1 of the 4 images that .*public\.csv names are missing; expected 'owl\.png' "
        r"\(filename\); found 3 files, such as 'cat\.png'",
    ),
    "an image that does not open": (
        lambda folder: (without_entry("owl.png")(folder), entry("owl.png")(folder)), {},
        RecordingsError, r"public\.zip, owl\.png: the image does not open",
    ),
    "a table that climbs out": (
        edit("owl.png", "../owl.png"), {}, RecordingsError,
        r"public\.csv: 1 file names leave the folder of images; .*found '\.\./owl\.png'",
    ),
    "a zip that climbs out": (
        entry("../evil.png"), {}, RecordingsError,
        r"public\.zip: the zip has 1 entries that leave its folder; .*found '\.\./evil\.png'",
    ),
    "a zip with an absolute path": (
        entry("/etc/evil.png"), {}, RecordingsError,
        r"public\.zip: the zip has 1 entries that leave its folder; .*found '/etc/evil\.png'",
    ),
    "a truncated zip": (
        truncate(ZIP, 0.5), {}, RecordingsError, r"public\.zip: no such images; expected a folder",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ERRORS)
def test_files_that_do_not_fit_are_refused_in_one_line(recordings, tmp_path, name):
    damage, options, kind, says = ERRORS[name]
    files = write_brainio(tmp_path / "b", recordings)
    damage(tmp_path / "b")
    with pytest.raises(kind, match=says) as raised:
        import_brainio(*files, tmp_path / "out", **options)
    assert isinstance(raised.value, NrpOnnxError)
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "out").exists()
    assert not list(tmp_path.glob(".*"))


def test_the_toy_assembly_of_events_says_what_it_lacks(shared, recordings, tmp_path):
    toy = shared / "data" / "brainio_toy" / "assy_test_package_assembly_extras.nc"
    _, table, images = write_brainio(tmp_path / "b", recordings)
    with pytest.raises(
        RecordingsError,
        match=r"extras\.nc: no variable holds responses; expected numbers over presentation, "
        r"neuroid .*found .*data \(event\)",
    ):
        import_brainio(toy, table, images, tmp_path / "out")


@pytest.mark.parametrize(
    ("toy", "ids"), [("package_assembly", ("n0", "n5")), ("TestMe", ("n0", "n1"))]
)
def test_the_toy_assemblies_say_that_they_have_no_region(shared, recordings, tmp_path, toy, ids):
    path = shared / "data" / "brainio_toy" / f"assy_test_{toy}.nc"
    _, table, images = write_brainio(tmp_path / "b", recordings)
    with pytest.raises(RecordingsError, match="does not say where its neuroids are"):
        import_brainio(path, table, images, tmp_path / "out")
    with pytest.raises(RecordingsError, match=f"are not in the table; .*found no '{ids[0]}'"):
        import_brainio(path, table, images, tmp_path / "out", region="IT")


def test_the_command_imports_and_refuses(recordings, tmp_path):
    write_brainio(tmp_path, recordings)
    command = ["recordings", "import", NC, "--stimuli", CSV, "--images", ZIP]
    run = nrp_onnx(*command, "-o", "new", "--window", 70, 170, cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    assert run.stdout == "new: 4 stimuli, 3 sites\n"
    truncate(NC, 0.5)(tmp_path)
    run = nrp_onnx(*command, "-o", "other", cwd=tmp_path)
    assert_user_error(run, NC, "this file cannot be read")
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["a.nc", "--format", "brainio"], "--stimuli, --images: the format brainio needs more"),
        (
            ["a.nc", "--format=brainio", "--stimuli=s", "--images=i", "--axes=site"],
            "--axes: these do not go with the format brainio",
        ),
        (["i.zip", "r.npy"], "it is not clear what to import; expected one PATH, or IMAGES"),
        (["i.zip", "r.npy", "--axes", "site", "--window", "1", "2"], "--window: these do not go"),
        (["s", "--format=algonauts", "--units", "x"], "--units: these do not go with the format"),
        (
            ["a.nc", "--format", "netcdf"],
            "--format: there is no such format; expected algonauts or",
        ),
        (["--stimuli", "s.csv"], "it is not clear what to import"),
    ],
)
def test_options_that_do_not_belong_together(tmp_path, words, says):
    from typer.testing import CliRunner

    from nrp_onnx.cli.recordings import recordings_app

    with pytest.raises(OptionError) as raised:
        CliRunner().invoke(
            recordings_app, ["import", *words, "-o", str(tmp_path / "o")], catch_exceptions=False
        )
    assert says in str(raised.value)
