"""Train and test stimuli as two assemblies of BrainIO."""

from pathlib import Path

import numpy as np
import pytest

from nrp_onnx.recordings import import_brainio, load_recordings, validate_recordings
from tests.command_line import assert_user_error, nrp_onnx
from tests.recordings.brainio_file import write_assembly, write_stimulus_set


def write_pair(
    folder: Path, recordings, train: list[int], test: list[int], order: list[int], end: int = 170
) -> None:
    """train.nc and test.nc of some stimuli; the neuroids of the second in another order."""
    shown = np.array(recordings.presentation_stimulus)
    for name, stimuli, sites, last in (
        ("train", train, [0, 1, 2], 170), ("test", test, order, end)
    ):  # fmt: skip
        rows = np.flatnonzero(np.isin(shown, stimuli))
        data = recordings.responses[rows][:, sites].T[:, :, None]
        write_assembly(
            folder / f"{name}.nc",
            data.__getitem__,
            {
                "neuroid": {
                    "neuroid_id": [recordings.site_ids[site] for site in sites],
                    "region": [recordings.regions[site] for site in sites],
                },
                "presentation": {
                    "stimulus_id": [recordings.stimulus_ids[shown[row]] for row in rows],
                    "repetition": recordings.repetition[rows].astype("<i8"),
                },
                "time_bin": {"time_bin_start": np.array([70]), "time_bin_end": np.array([last])},
            },
        )
    write_stimulus_set(folder / "s.csv", folder / "i.zip", recordings, "stimulus_id")


COMMAND = (
    *("recordings", "import", "train.nc", "--test", "test.nc", "--stimuli", "s.csv"),
    *("--images", "i.zip", "-o", "out"),
)


def test_the_label_split_says_which_assembly_a_stimulus_is_of(recordings, tmp_path):
    write_pair(tmp_path, recordings, [0, 2], [1, 3], [2, 0, 1])
    run = nrp_onnx(*COMMAND, cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    read = load_recordings(tmp_path / "out")
    assert read.stimulus_ids == ("cat", "owl", "dog", "eel")
    assert read.stimulus_labels["split"] == ("train", "train", "test", "test")
    assert read.stimulus_labels["object_name"] == ("mammal", "bird", "mammal", "fish")
    assert read.site_ids == recordings.site_ids
    np.testing.assert_allclose(read.averages, recordings.averages[[0, 2, 1, 3]], rtol=1e-6)
    assert validate_recordings(tmp_path / "out") == []


@pytest.mark.parametrize(
    ("train", "test", "sites", "end", "says"),
    [
        ([0, 1], [1, 2], [0, 1, 2], 170, "test.nc: 1 stimuli are in the assemblies of both train and "
         "test; expected stimuli that train.nc does not have; found 'dog'"),
        ([0, 1], [2], [0, 1], 170, "test.nc: the assemblies of train and test are of other neuroids; "
         "expected the 3 neuroids of train.nc; found 2, of which 2 are there"),
        ([0, 1], [2], [0, 1, 2], 200, "test.nc: the assemblies of train and test differ in regions or "
         "time window; expected those of train.nc: (70.0, 170.0) ms; found (70.0, 200.0) ms"),
    ],
)  # fmt: skip
def test_assemblies_that_do_not_belong_together(
    recordings, tmp_path, train, test, sites, end, says
):
    write_pair(tmp_path, recordings, train, test, sites, end)
    run = nrp_onnx(*COMMAND, cwd=tmp_path)
    assert_user_error(run, says)
    assert not (tmp_path / "out").exists()


def test_python_takes_the_pair_too(recordings, tmp_path):
    write_pair(tmp_path, recordings, [0, 2], [1, 3], [0, 1, 2])
    read = import_brainio(
        tmp_path / "train.nc", tmp_path / "s.csv", tmp_path / "i.zip", tmp_path / "out",
        test=tmp_path / "test.nc", visual_degrees=8,
    )  # fmt: skip
    assert read.visual_degrees == 8
    assert read.provenance["test"]["assembly"]["file"] == "test.nc"
