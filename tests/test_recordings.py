"""Recordings: import, folder format, what is wrong with them, simulation, trial noise."""

import json
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from nrp_onnx.recordings import load_recordings, simulate_recordings, trial_noise
from tests.conftest import assert_user_error, nrp_onnx


def test_averages_are_those_of_the_array(raw_data: Path, recordings_folder: Path) -> None:
    rates = np.load(raw_data / "rates.npy")
    recordings = load_recordings(recordings_folder)
    np.testing.assert_allclose(recordings.averages, np.nanmean(rates, axis=2).T, rtol=1e-5)
    table = pd.read_parquet(recordings_folder / "responses.parquet")
    row = table[(table["stimulus_id"] == "s7") & (table["repetition"] == 2)].iloc[0]
    np.testing.assert_allclose(row["responses"], rates[:, 7, 2], rtol=1e-6)


def test_zip_and_permuted_axes_give_the_same(raw_data: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "images.zip", "w") as archive:
        for path in (raw_data / "images").iterdir():
            archive.write(path, f"images/{path.name}")
    rates = np.load(raw_data / "rates.npy")
    np.savez(tmp_path / "rates.npz", other=np.zeros(3), rates=rates.transpose(2, 0, 1))
    given = ("recordings", "import", tmp_path / "images.zip", tmp_path / "rates.npz", "--region", "V4",
             "--axes", "repetition,site,stimulus", "-o", tmp_path / "out")  # fmt: skip
    assert_user_error(nrp_onnx(*given), "several arrays", "other, rates", "--key")
    run = nrp_onnx(*given, "--key", "rates", "--name", "x")
    assert run.returncode == 0, run.stderr
    assert "file-name order" in run.stderr
    found = load_recordings(tmp_path / "out").averages
    np.testing.assert_allclose(found, np.nanmean(rates, axis=2).T, rtol=1e-5)


def test_describe_and_validate(recordings_folder: Path) -> None:
    run = nrp_onnx("recordings", "describe", recordings_folder, "--json")
    facts = json.loads(run.stdout)
    assert (facts["n_stimuli"], facts["n_sites"], facts["regions"]) == (40, 6, {"V4": 6})
    assert facts["repetitions"] == {"min": 3, "median": 4.0, "max": 4}
    run = nrp_onnx("recordings", "validate", recordings_folder)
    assert (run.returncode, "no problems" in run.stdout) == (0, True)


def test_validate_names_every_problem(recordings_folder: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(recordings_folder, broken)
    (broken / "stimuli" / "im03.png").write_bytes(b"")
    (broken / "stimuli" / "im04.png").unlink()
    text = (broken / "sites.csv").read_text().replace("V4_001", "V4_000")
    (broken / "sites.csv").write_text(text)
    run = nrp_onnx("recordings", "validate", broken)
    assert run.returncode == 2
    problems = run.stdout.splitlines()
    assert len(problems) == 3
    for part in ("im03.png", "im04.png", "V4_000"):
        assert sum(part in problem for problem in problems) == 1


def test_bad_imports_are_one_line(raw_data: Path, tmp_path: Path) -> None:
    rates = np.load(raw_data / "rates.npy")
    np.save(tmp_path / "short.npy", rates[:, :39])
    silent = rates.copy()
    silent[2] = np.nan
    np.save(tmp_path / "silent.npy", silent)
    np.save(tmp_path / "objects.npy", np.array([{}], object), allow_pickle=True)
    lines = (raw_data / "stimuli.csv").read_text().splitlines()
    (tmp_path / "twice.csv").write_text("\n".join([*lines[:-1], lines[1]]))
    (tmp_path / "absent.csv").write_text("\n".join([*lines[:-1], "s39,gone.png,a"]))
    with zipfile.ZipFile(tmp_path / "evil.zip", "w") as archive:
        archive.writestr("../evil.png", b"x")
    shutil.copytree(raw_data / "images", tmp_path / "cut")
    (tmp_path / "cut" / "im05.png").write_bytes((raw_data / "images" / "im05.png").read_bytes()[:90])
    images, good, axes = raw_data / "images", raw_data / "rates.npy", "site,stimulus,repetition"
    table = raw_data / "stimuli.csv"
    cases = [
        ((images, tmp_path / "short.npy", axes, table), ["short.npy", "expected 40", "found 39"]),
        ((images, tmp_path / "silent.npy", axes, table), ["silent.npy", "V4_002", "no response"]),
        ((images, tmp_path / "objects.npy", axes, table), ["objects.npy", "pickled"]),
        ((images, good, axes, tmp_path / "twice.csv"), ["twice.csv", "comes twice", "'s0'"]),
        ((images, good, axes, tmp_path / "absent.csv"), ["missing", "gone.png"]),
        ((images, good, "site,stimulus", table), ["expected 2 axes", "(6, 40, 4)"]),
        ((images, good, "site,time,stimulus", table), ["--axes", "site,time,stimulus"]),
        ((tmp_path / "evil.zip", good, axes, table), ["evil.zip", "../evil.png"]),
        ((tmp_path / "cut", good, axes, table), ["im05.png", "does not open"]),
        ((tmp_path / "none", good, axes, table), ["none", "folder or a zip"]),
    ]  # fmt: skip
    for (pictures, array, names, stimuli), parts in cases:
        run = nrp_onnx("recordings", "import", pictures, array, "--axes", names, "--stimuli",
                       stimuli, "--region", "V4", "-o", tmp_path / "out")  # fmt: skip
        assert_user_error(run, *parts)
        assert not (tmp_path / "out").exists()


def test_simulation_is_reproducible_and_its_truth_is_known(tmp_path: Path) -> None:
    first = simulate_recordings(tmp_path / "a", 64, seed=3)
    simulate_recordings(tmp_path / "b", 64, seed=3)
    other = simulate_recordings(tmp_path / "c", 64, seed=4)
    files = sorted(path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*.*"))
    assert len(files) == 64 + 5
    for file in files:
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()
    assert other.fingerprint != first.fingerprint
    assert first.simulated
    assert (first.regions.count("V4"), first.regions.count("IT")) == (88, 168)
    names = first.stimulus_labels["object_name"]
    assert {names.count(name) for name in set(names)} == {8}
    # The averages of ten trials lie around the truth by what the trial noise leaves.
    truth = first.noise_free
    assert truth is not None
    error = np.abs(first.averages - truth)
    assert trial_noise(first).mean() == pytest.approx(error.mean(), rel=0.02)
    # Counts have the variance that the documented Fano factor gives them.
    blank, fano = 4.0, 1.3
    counts = first.responses * np.sqrt(fano * blank) + blank
    trials = counts.reshape(64, 10, 256)
    assert (trials.var(axis=1, ddof=1).mean() / trials.mean()) == pytest.approx(fano, rel=0.03)


def test_trial_noise_of_gaussian_trials_has_its_closed_form(recordings_folder: Path) -> None:
    recordings = load_recordings(recordings_folder)
    expected = 0.3 / np.sqrt(4) * np.sqrt(2 / np.pi)
    assert np.nanmean(trial_noise(recordings)) == pytest.approx(expected, rel=0.1)


def test_default_recordings_say_simulated(tmp_path: Path) -> None:
    run = nrp_onnx("recordings", "describe", "simulated:7")
    assert_user_error(run, "--recordings", "simulated:N", "'simulated:7'")


def test_real_recordings_average_as_numpy_does(shared: Path, tmp_path: Path) -> None:
    data = shared / "data" / "macaque_v4_210325"
    run = nrp_onnx("recordings", "import", data / "images.zip", data / "responses.npy", "--axes",
                   "site,stimulus,repetition", "--region", "V4", "--stimuli", data / "stimuli.csv",
                   "-o", tmp_path / "v4")  # fmt: skip
    assert run.returncode == 0, run.stderr
    recordings = load_recordings(tmp_path / "v4")
    counts = recordings.repetition_counts()
    assert (recordings.n_stimuli, recordings.n_sites) == (640, 50)
    assert (counts.min(), counts.max()) == (6, 10)
    expected = np.nanmean(np.load(data / "responses.npy"), axis=2).T
    np.testing.assert_allclose(recordings.averages, expected, rtol=1e-6)
