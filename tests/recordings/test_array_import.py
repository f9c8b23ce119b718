import logging
import zipfile
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nrp_onnx.errors import RecordingsError
from nrp_onnx.recordings import Recordings, load_recordings
from tests.recordings.array_parts import AXES, N_REPETITIONS, N_STIMULI, ROWS, run


def value(recordings: Recordings, stimulus: str, repetition: int, site: str) -> float:
    """The response by names, read from the presentations."""
    where = (recordings.presentation_stimulus == recordings.stimulus_ids.index(stimulus)) & (
        recordings.repetition == repetition
    )
    assert where.sum() == 1
    return float(recordings.responses[where, recordings.site_ids.index(site)][0])


@pytest.mark.parametrize(
    "axes",
    list(permutations(AXES)),
)
def test_axes_may_come_in_any_order(parts, axes):
    folder, array = parts
    np.save(folder / "turned.npy", array.transpose([AXES.index(axis) for axis in axes]))
    recordings = run(folder, "turned.npy", axes=axes)
    # Row 3 of the table is s2, whose image is dog.png.
    assert value(recordings, "s2", 2, "V4_001") == np.float32(array[1, 3, 2])
    assert value(recordings, "s3", 3, "V4_000") == np.float32(array[0, 0, 3])
    np.testing.assert_allclose(recordings.averages, np.nanmean(array, axis=2).T, rtol=1e-6)
    dog = recordings.stimulus_paths[recordings.stimulus_ids.index("s2")]
    assert dog.read_bytes() == (folder / "pictures" / "dog.png").read_bytes()


def test_presentations_that_were_not_are_left_out(parts):
    folder, array = parts
    recordings = run(folder)
    assert len(recordings.responses) == N_STIMULI * N_REPETITIONS - 1
    assert recordings.provenance["n_empty_presentations"] == 1
    assert np.isnan(value(recordings, "s3", 0, "V4_002"))
    np.testing.assert_array_equal(recordings.repetition_counts(), (~np.isnan(array)).sum(2).T)


def test_repetitions_are_optional(parts):
    folder, array = parts
    np.save(folder / "means.npy", np.nanmean(array, axis=2))
    recordings = run(folder, "means.npy", axes=("site", "stimulus"))
    np.testing.assert_allclose(recordings.averages, np.nanmean(array, axis=2).T, rtol=1e-6)
    assert set(recordings.repetition) == {0}


def test_facts_and_labels_are_kept(parts):
    folder, _ = parts
    run(
        folder,
        region=None,
        sites=folder / "sites.csv",
        name="mine",
        units="spikes",
        normalised=True,
        time_window_ms=(70, 170),
        licence="CC-BY-4.0",
        citation="Me (2021)",
    )
    loaded = load_recordings(folder / "out")
    assert (loaded.site_ids, loaded.regions) == (("x", "y", "z"), ("IT", "V4", "IT"))
    assert loaded.site_labels == {"animal": ("m", "m", "n")}
    assert loaded.stimulus_labels == {"object_name": ("thing",) * N_STIMULI}
    assert (loaded.name, loaded.units, loaded.normalised) == ("mine", "spikes", True)
    assert (loaded.time_window_ms, loaded.licence) == ((70.0, 170.0), "CC-BY-4.0")
    assert (loaded.citation, loaded.simulated) == ("Me (2021)", False)
    assert loaded.provenance["axes"] == list(AXES)
    assert loaded.provenance["stimulus_order"] == "rows of stimuli.csv"


def test_without_a_table_images_pair_in_file_name_order_and_that_is_said(parts, caplog):
    folder, array = parts
    with caplog.at_level(logging.WARNING, "nrp_onnx"):
        recordings = run(folder, stimuli=None)
    assert "pairs with the 5 images" in caplog.text
    assert recordings.provenance["stimulus_order"] == "file names, sorted as text"
    assert recordings.stimulus_ids == ("ant", "cat", "dog", "eel", "owl")
    assert value(recordings, "dog", 1, "V4_002") == np.float32(array[2, 2, 1])


def make_zip(folder: Path, prefix: str = "") -> None:
    with zipfile.ZipFile(folder / "pictures.zip", "w") as archive:
        archive.mkdir("nothing")
        for _, file in reversed(ROWS):
            archive.write(folder / "pictures" / file, prefix + file)
            archive.writestr(f"__MACOSX/{prefix}._{file}", b"resource fork")


@pytest.mark.parametrize("prefix", ["", "hvm/"])
@pytest.mark.parametrize("table", [True, False])
def test_a_zip_gives_what_its_folder_gives(parts, prefix, table):
    folder, _ = parts
    make_zip(folder, prefix)
    options: dict[str, Any] = {} if table else {"stimuli": None}
    plain = run(folder, **options)
    (folder / "out").rename(folder / "plain")
    zipped = run(folder, images="pictures.zip", **options)
    fingerprint = load_recordings(folder / "plain").fingerprint
    assert zipped.fingerprint == fingerprint
    assert zipped.stimulus_ids == plain.stimulus_ids


@pytest.mark.parametrize(
    "entry", ["../evil.png", "/etc/evil.png", "a/../../evil.png", "C:\\evil.png", "..\\evil.png"]
)
def test_a_zip_that_leaves_its_folder_is_refused(parts, entry):
    folder, _ = parts
    make_zip(folder)
    with zipfile.ZipFile(folder / "pictures.zip", "a") as archive:
        archive.writestr(entry, b"evil")
    before = sorted(folder.parent.rglob("*"))
    with pytest.raises(RecordingsError, match=r"pictures\.zip: the zip has 1 entries that leave"):
        run(folder, images="pictures.zip")
    assert sorted(folder.parent.rglob("*")) == before


def test_one_array_of_several_is_named(parts):
    folder, array = parts
    np.savez(folder / "two.npz", first=array + 1, second=array)
    assert value(run(folder, "two.npz", key="second"), "s1", 0, "V4_000") == np.float32(
        array[0, 1, 0]
    )
