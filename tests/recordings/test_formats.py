"""What recordings import finds out about a path, options of formats, importers of other packages."""

import contextlib
import logging
from dataclasses import replace
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from unittest import mock

import h5py
import numpy as np
import pytest

from nrp_onnx.errors import RecordingsError
from nrp_onnx.notes import Notes
from nrp_onnx.recordings import import_path
from nrp_onnx.recordings.importers import Importer, Parts, formats
from nrp_onnx.recordings.importers.arrays import IMPORTER as ARRAYS
from nrp_onnx.recordings.importers.formats import find_importers
from nrp_onnx.recordings.importers.hdf5 import child, open_hdf5
from tests.command_line import assert_one_line_error, nrp_onnx
from tests.recordings.algonauts_folder import write_subject
from tests.recordings.array_parts import AXES
from tests.recordings.brainio_file import write_brainio

FORMATS = {
    *("algonauts", "arrays", "brainio", "cowley_v4", "laion_fmri", "nsd", "nwb", "sensorium"),
    *("triple_n", "tvsd"),
}


def test_the_importers_of_this_package_are_entry_points():
    assert set(find_importers(Notes())) >= FORMATS


@pytest.fixture
def session(parts) -> tuple[Path, np.ndarray]:
    """A folder with images/ and responses.npy."""
    folder, array = parts
    lab = folder / "day1"
    lab.mkdir()
    (folder / "pictures").rename(lab / "images")
    (folder / "rates.npy").rename(lab / "responses.npy")
    return lab, array


def test_a_folder_with_images_and_responses(session, tmp_path):
    lab, array = session
    out = tmp_path / "out"
    run = nrp_onnx(
        "recordings", "import", lab, "--axes", ",".join(AXES), "--region", "V4",
        "--stimuli", lab.parent / "stimuli.csv", "-o", out,
    )  # fmt: skip
    assert run.stdout == f"{out}: 5 stimuli, 3 sites\n", run.stderr
    read = import_path(
        lab, tmp_path / "again", axes=AXES, region="V4", stimuli=lab.parent / "stimuli.csv"
    )
    np.testing.assert_allclose(read.averages, np.nanmean(array, axis=2).T, rtol=1e-6)
    assert read.name == "day1"


def test_what_is_detected_is_said(tmp_path, recordings):
    write_subject(tmp_path / "subj01")
    run = nrp_onnx("recordings", "import", tmp_path / "subj01", "-o", tmp_path / "a")
    assert run.returncode == 0, run.stderr
    said = "subj01 is read as algonauts: it holds training_split/training_fmri"
    assert said in run.stderr
    assembly, table, images = write_brainio(tmp_path / "b", recordings)
    renamed = assembly.rename(assembly.with_suffix(".h5"))
    run = nrp_onnx(
        "recordings", "import", renamed, "--stimuli", table, "--images", images,
        "--licence", "CC0-1.0", "--visual-degrees", 7, "-o", tmp_path / "c",
    )  # fmt: skip
    assert "read as brainio: it has the dimensions presentation and neuroid" in run.stderr
    assert run.returncode == 0, run.stderr


def test_facts_of_the_user_replace_those_of_the_format(tmp_path):
    write_subject(tmp_path / "subj01")
    facts = {"name": "mine", "visual_degrees": 5.0}
    read = import_path(tmp_path / "subj01", tmp_path / "a", facts=facts)
    assert (read.name, read.visual_degrees) == ("mine", 5)
    assert "Gifford" in (read.citation or "")


def test_nothing_known_is_told_with_all_that_was_looked_for(tmp_path):
    (tmp_path / "data.xyz").write_text("?")
    run = nrp_onnx("recordings", "import", tmp_path / "data.xyz", "-o", tmp_path / "out")
    assert_one_line_error(
        run, "this is of no known format", "tvsd: a folder monkeyF or monkeyN",
        "nwb: a file .nwb", "found a file '.xyz'", "--axes",
    )  # fmt: skip
    run = nrp_onnx("recordings", "import", tmp_path / "gone", "-o", tmp_path / "out")
    assert_one_line_error(run, "gone: there is nothing to import")


def test_two_formats_at_once_are_told_and_one_is_chosen(session, tmp_path):
    lab, _ = session
    write_subject(lab)
    run = nrp_onnx("recordings", "import", lab, "-o", tmp_path / "out")
    assert_one_line_error(
        run, "day1: this may be of several formats; expected one; found algonauts (it holds "
        "training_split/training_fmri); arrays (it holds images and responses.npy). Choose one",
    )  # fmt: skip
    run = nrp_onnx("recordings", "import", lab, "--format", "algonauts", "-o", tmp_path / "out")
    assert run.returncode == 0, run.stderr


@contextlib.contextmanager
def installed(*points: EntryPoint):
    """As if another package had these entry points."""

    def found(group: str):
        return [*entry_points(group=group), *points] if group == "nrp_onnx.importers" else []

    with mock.patch(f"{formats.__name__}.entry_points", found):
        yield


@contextlib.contextmanager
def read_lab(path: Path, notes: Notes, *, region: str):
    """An importer of another package: an .npy file beside its images."""
    with ARRAYS.read(
        path / "lab.npy", notes, images=path / "images", axes=AXES, region=region
    ) as parts:
        renamed = replace(parts.recordings, units="lab units")
        yield Parts(renamed, parts.images, parts.sources, np.array([0.2, 0.9, 0.5]), "own number")


PLUGIN = Importer(
    "lab", "a folder with lab.npy", lambda p: "lab.npy" if (p / "lab.npy").exists() else None,
    read_lab,
)  # fmt: skip
BROKEN = None


def test_an_importer_of_another_package(session, tmp_path, caplog):
    lab, _ = session
    (lab / "responses.npy").rename(lab / "lab.npy")
    points = [
        EntryPoint("lab", f"{__name__}:PLUGIN", "nrp_onnx.importers"),
        EntryPoint("tvsd", f"{__name__}:BROKEN", "nrp_onnx.importers"),
        EntryPoint("gone", "no.such.module:IMPORTER", "nrp_onnx.importers"),
    ]
    with installed(*points), caplog.at_level(logging.WARNING, "nrp_onnx"):
        read = import_path(lab, tmp_path / "out", region="IT", min_reliability=0.4)
        run = nrp_onnx("recordings", "import", lab, "-o", tmp_path / "other")
    assert read.units == "lab units"
    assert read.site_ids == ("IT_001", "IT_002")
    assert "1 of 3 sites are left out: their own number is below 0.4" in caplog.text
    assert "it is no Importer, but NoneType" in caplog.text
    assert "the plug-in gone of no.such.module:IMPORTER is left out: ModuleNotFound" in caplog.text
    assert_one_line_error(run, "--region: the format lab needs more than day1; expected --region")


def test_reliability_is_computed_where_the_format_gives_none(session, tmp_path, caplog):
    lab, array = session
    rng = np.random.default_rng(1)
    signal = rng.normal(size=(3, 5, 1)) * np.array([0.0, 9.0, 9.0])[:, None, None]
    np.save(lab / "responses.npy", signal + rng.normal(size=array.shape))
    options = {"axes": AXES, "region": "V4", "stimuli": lab.parent / "stimuli.csv"}
    read = import_path(lab, tmp_path / "out", min_reliability=0.8, **options)
    assert read.site_ids == ("V4_001", "V4_002")
    assert (
        "1 of 3 sites are left out: their reliability of averages over repetitions" in caplog.text
    )
    with pytest.raises(RecordingsError, match=r"no site is reliable enough; .* of 1 or more"):
        import_path(lab, tmp_path / "no", min_reliability=1.0, **options)
    np.save(lab / "responses.npy", signal)
    run = nrp_onnx(
        "recordings", "import", lab, "--axes", "site,stimulus,repetition", "--region", "V4",
        "--min-reliability", 0.3, "-o", tmp_path / "no",
    )  # fmt: skip
    assert_one_line_error(run, "--min-reliability: the reliability of the sites is not known")


def write_links(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["numbers"] = np.arange(6.0)
        file["group/inner"] = h5py.SoftLink("/numbers")
        file["group/up"] = h5py.SoftLink("/out/x")
        file["out"] = h5py.ExternalLink("other.h5", "/")
        layout = h5py.VirtualLayout((6,), "f8")
        layout[:] = h5py.VirtualSource("other.h5", "x", (6,))
        file.create_virtual_dataset("virtual", layout)
        file.create_dataset("raw", (4,), "f8", external=[("other.bin", 0, 32)])
        file["circle"] = h5py.SoftLink("/circle")


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("virtual", "a virtual data set"),
        ("raw", "external storage"),
        ("out", "a link to 'other.h5'"),
        ("group/up", "a link to 'other.h5'"),
    ],
)
def test_hdf5_that_leads_out_of_its_file_is_refused(tmp_path, name, found):
    write_links(tmp_path / "a.h5")
    with (
        pytest.raises(RecordingsError, match=f"leads out of the file; .*found {found}"),
        open_hdf5(tmp_path / "a.h5") as file,
    ):
        child(file, name, tmp_path / "a.h5")


def test_links_inside_a_file_are_followed_and_circles_are_not(tmp_path):
    write_links(tmp_path / "a.h5")
    with open_hdf5(tmp_path / "a.h5") as file:
        assert child(file, "group/inner", tmp_path / "a.h5")[2] == 2
        assert child(file, "group/none", tmp_path / "a.h5") is None
    with (
        pytest.raises(RecordingsError, match="this file cannot be read"),
        open_hdf5(tmp_path / "a.h5") as file,
    ):
        child(file, "circle", tmp_path / "a.h5")


@pytest.mark.parametrize("name", ["virtual", "raw"])
def test_arrays_of_hdf5_are_read_from_their_file_only(parts, tmp_path, name):
    folder, _ = parts
    write_links(folder / "a.h5")
    run = nrp_onnx(
        "recordings", "import", folder / "pictures", folder / "a.h5", "--key", name,
        "--axes", "site,stimulus", "--region", "V4", "-o", tmp_path / "out",
    )  # fmt: skip
    assert_one_line_error(run, f"a.h5: '/{name}' leads out of the file")
