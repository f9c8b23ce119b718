import os
import subprocess
import sys

import numpy as np
import pytest

from nrp_onnx.errors import OptionError, OutputError, RecordingsError
from nrp_onnx.notes import Notes
from nrp_onnx.recordings import open, open_recordings, save_recordings
from nrp_onnx.recordings.simulation.simulate import SIMULATION_VERSION


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("NRP_ONNX_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_none_is_simulated_and_says_so(monkeypatch):
    monkeypatch.setattr(open, "N_STIMULI", 16)  # the real 3,200 take half a minute
    notes = Notes()
    recordings = open_recordings(None, notes)
    assert recordings.simulated
    assert recordings.n_stimuli == 16
    assert "--recordings FOLDER" in notes.said[0]
    assert sum("SIMULATED" in note for note in notes.said) == 1
    assert open_recordings("simulated", Notes()).fingerprint == recordings.fingerprint


def test_a_simulation_is_rendered_once(cache, monkeypatch):
    notes = Notes()
    first = open_recordings("simulated:16", notes)
    assert (first.n_stimuli, len(notes.said)) == (16, 1)
    assert "SIMULATED" in notes.said[0]
    assert [path.name for path in cache.iterdir()] == [f"simulated-v{SIMULATION_VERSION}-16-seed0"]

    def again(*_):
        raise AssertionError("rendered again")

    monkeypatch.setattr(open, "simulate_recordings", again)
    second = open_recordings("simulated:16", notes)
    assert second.fingerprint == first.fingerprint
    assert len(notes.said) == 1


@pytest.mark.parametrize("n", ["15", "-16", "16.5", "many", "", "²"])
def test_a_wrong_number_of_stimuli_is_refused(n, cache):
    with pytest.raises(
        OptionError, match=rf"simulated:N with N of 16 or more; found simulated:{n}"
    ):
        open_recordings(f"simulated:{n}", Notes())
    assert not cache.exists()


def test_a_folder_of_real_recordings_needs_no_note(changed, tmp_path):
    real = changed(simulated=False, noise_free=None)
    save_recordings(real, tmp_path / "real")
    notes = Notes()
    opened = open_recordings(str(tmp_path / "real"), notes)
    np.testing.assert_array_equal(opened.averages, real.averages)
    assert notes.said == []


def test_a_simulated_folder_is_said_to_be_simulated(folder):
    notes = Notes()
    open_recordings(folder, notes)
    assert ["SIMULATED" in note for note in notes.said] == [True]


def test_a_damaged_cache_says_what_to_delete(cache):
    open_recordings("simulated:16", Notes())
    folder = next(cache.iterdir())
    (folder / "sites.csv").unlink()
    with pytest.raises(
        RecordingsError, match=r"the cached simulation is damaged.*sites\.csv.*Delete"
    ):
        open_recordings("simulated:16", Notes())


def test_a_cache_that_cannot_be_written_is_one_line(cache):
    cache.write_text("a file")
    with pytest.raises(OutputError, match=r"cannot be kept.*NRP_ONNX_CACHE"):
        open_recordings("simulated:16", Notes())


@pytest.mark.slow
def test_two_processes_may_render_at_once(cache):
    code = (
        "from nrp_onnx.recordings import open_recordings; from nrp_onnx.notes import Notes;"
        "print(open_recordings('simulated:96', Notes()).fingerprint)"
    )
    both = [
        subprocess.Popen(
            [sys.executable, "-c", code],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=dict(os.environ),
            text=True,
        )
        for _ in range(2)
    ]
    outputs = [process.communicate(timeout=120) for process in both]
    assert [process.returncode for process in both] == [0, 0], outputs
    assert len({printed for printed, _ in outputs}) == 1
    assert len(list(cache.iterdir())) == 1
