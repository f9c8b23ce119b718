"""A monkey's folder of TVSD as recordings: areas, the fixed split, the selection by reliability."""

import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest

from nrp_onnx.recordings import load_recordings, validate_recordings
from tests.command_line import assert_one_line_error, nrp_onnx
from tests.recordings.tvsd_folder import (
    N_CHANNELS,
    N_REPETITIONS,
    N_TEST,
    N_TRAIN,
    write_tvsd,
)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, np.ndarray]:
    folder = tmp_path_factory.mktemp("tvsd")
    return folder, write_tvsd(folder)


@pytest.fixture(scope="module")
def imported(written, tmp_path_factory):
    """The folder of the imported recordings, and what was said."""
    folder, _ = written
    out = tmp_path_factory.mktemp("out") / "f"
    run = nrp_onnx(
        "recordings", "import", folder / "monkeyF", "--images", folder / "things", "-o", out
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout == f"{out}: {N_TRAIN + N_TEST} stimuli, {N_CHANNELS} sites\n"
    return out, run.stderr


def test_responses_and_images_are_those_of_the_files(written, imported):
    folder, test = written
    read = load_recordings(imported[0])
    with h5py.File(folder / "monkeyF" / "THINGS_normMUA.mat") as file:
        expected = np.concatenate([file["train_MUA"][...], test.mean(axis=0)])
    np.testing.assert_allclose(read.averages, expected, atol=1e-6)
    counts = read.repetition_counts()
    assert set(counts[:N_TRAIN].ravel()) == {1}
    assert set(counts[N_TRAIN:].ravel()) == {N_REPETITIONS}
    assert read.stimulus_ids[0] == "thing000_01b"
    for place in (0, N_TRAIN + 3):
        name = f"thing{place:03d}/thing{place:03d}_01b.jpg"
        assert read.stimulus_paths[place].read_bytes() == (folder / "things" / name).read_bytes()
    assert validate_recordings(imported[0]) == []


def test_facts_are_those_of_the_data_set(imported):
    read = load_recordings(imported[0])
    assert read.stimulus_labels["split"] == ("train",) * N_TRAIN + ("test",) * N_TEST
    assert read.stimulus_labels["concept"][4] == "thing004"
    assert read.regions == ("V1",) * 512 + ("IT",) * 320 + ("V4",) * 192
    assert set(read.site_labels["animal"]) == {"F"}
    assert read.visual_degrees == 18.6
    assert read.normalised
    assert read.provenance["time_windows_ms"] == {"V1": [25, 125], "V4": [50, 150], "IT": [75, 175]}
    order = read.provenance["image_order"]
    assert {part: found["looks_wrong"] for part, found in order.items()} == {
        "train": False,
        "test": False,
    }


def test_nothing_is_warned_of(imported):
    notes = [line for line in imported[1].splitlines() if line.startswith("note: ")]
    assert len(notes) == 1
    assert notes[0].endswith("monkeyF is read as tvsd: it holds THINGS_normMUA.mat")


def test_sites_are_selected_by_the_mean_of_reliab_only_where_that_is_asked(written, tmp_path):
    folder, _ = written
    with h5py.File(folder / "monkeyF" / "THINGS_normMUA.mat") as file:
        reliability = file["reliab"][...].mean(axis=0)
    kept = np.flatnonzero(reliability >= 0.4)
    assert 0 < len(kept) < 900
    run = nrp_onnx(
        "recordings", "import", folder / "monkeyF", "--images", folder / "things",
        "--min-reliability", 0.4, "-o", tmp_path / "out",
    )  # fmt: skip
    assert f"{N_CHANNELS - len(kept)} of 1024 sites are left out" in run.stderr
    read = load_recordings(tmp_path / "out")
    assert read.site_labels["channel"] == tuple(map(str, kept))
    assert read.provenance["min_reliability"] == 0.4
    assert read.provenance["n_sites_left_out"] == N_CHANNELS - len(kept)


def test_the_other_monkey_has_its_areas_in_another_order(written, tmp_path):
    folder, _ = written
    shutil.copytree(folder / "monkeyF", tmp_path / "session")
    command = ["recordings", "import", tmp_path / "session", "--images", folder / "things"]
    run = nrp_onnx(*command, "-o", tmp_path / "out")
    assert_one_line_error(run, "which monkey this is, is not known", "--animal F or --animal N")
    run = nrp_onnx(*command, "--animal", "N", "-o", tmp_path / "out")
    assert run.returncode == 0, run.stderr
    read = load_recordings(tmp_path / "out")
    assert read.regions == ("V1",) * 512 + ("V4",) * 256 + ("IT",) * 256
    assert read.visual_degrees == 17.3


def change(name: str, data):
    """Put other numbers under a name of THINGS_normMUA.mat."""

    def damage(monkey: Path) -> None:
        with h5py.File(monkey / "THINGS_normMUA.mat", "a") as file:
            old = file[name][...]
            del file[name]
            file[name] = data(old)

    return damage


def truncate(monkey: Path) -> None:
    path = monkey / "THINGS_normMUA.mat"
    path.write_bytes(path.read_bytes()[:300_000])


def delete(name: str):
    def damage(monkey: Path) -> None:
        with h5py.File(monkey / "THINGS_normMUA.mat", "a") as file:
            del file[name]

    return damage


def link_out(monkey: Path) -> None:
    with h5py.File(monkey / "THINGS_normMUA.mat", "a") as file:
        del file["train_MUA"]
        file["train_MUA"] = h5py.ExternalLink("/etc/other.h5", "/x")


def numbers_outside(monkey: Path) -> None:
    with h5py.File(monkey / "THINGS_normMUA.mat", "a") as file:
        shape = file["train_MUA"].shape
        del file["train_MUA"]
        file.create_dataset(
            "train_MUA", shape, "f8", external=[("/etc/passwd", 0, h5py.h5f.UNLIMITED)]
        )


def no_logs(monkey: Path) -> None:
    (monkey / "_logs" / "things_imgs.mat").unlink()


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (change("train_MUA", lambda a: a.T), "THINGS_normMUA.mat: train_MUA is transposed; expected "
         "numbers of the shape (130, 1024)"),
        (change("test_MUA_reps", lambda a: a.T), "test_MUA_reps is transposed"),
        (change("train_MUA", lambda a: a[:-1]), "train_MUA does not fit; expected numbers of the "
         "shape (130, 1024) in the file (images x channels), MATLAB's in reverse; found float64 "
         "(129, 1024)"),
        (change("reliab", lambda a: a.T), "reliab does not fit"),
        (truncate, "this file cannot be read; expected a whole MATLAB v7.3 file"),
        (delete("test_MUA_reps"), "the file has no data set test_MUA_reps"),
        (link_out, "'/train_MUA' leads out of the file; expected numbers inside the file; found a link "
         "to '/etc/other.h5'"),
        (numbers_outside, "'/train_MUA' leads out of the file; expected numbers inside the file; found "
         "external storage"),
        (no_logs, "things_imgs.mat: no such file; expected a MATLAB v7.3 file"),
    ],
)  # fmt: skip
def test_files_that_do_not_fit_are_refused_in_one_line(written, tmp_path, damage, says):
    folder, _ = written
    shutil.copytree(folder / "monkeyF", tmp_path / "monkeyF")
    damage(tmp_path / "monkeyF")
    run = nrp_onnx(
        "recordings", "import", tmp_path / "monkeyF", "--images", folder / "things",
        "-o", tmp_path / "out",
    )  # fmt: skip
    lines = [line for line in run.stderr.splitlines() if line.startswith("error: ")]
    assert run.returncode == 2, run.stderr
    assert len(lines) == 1
    assert says in lines[0]
    assert "Traceback" not in run.stderr
    assert not (tmp_path / "out").exists()


def test_images_that_are_not_there_are_named(written, tmp_path):
    folder, _ = written
    shutil.copytree(folder / "things", tmp_path / "things")
    shutil.rmtree(tmp_path / "things" / "thing007")
    run = nrp_onnx(
        "recordings", "import", folder / "monkeyF", "--images", tmp_path / "things",
        "-o", tmp_path / "out",
    )  # fmt: skip
    assert_one_line_error(
        run, "1 of the 130 images of train_imgs are missing", r"thing007\\thing007_01b.jpg"
    )


def test_both_monkeys_at_once_are_referred_to_merge(written, tmp_path):
    folder, _ = written
    run = nrp_onnx(
        "recordings", "import", folder, "--images", folder / "things", "-o", tmp_path / "out"
    )
    assert_one_line_error(run, "this is no folder of one monkey", "nrp-onnx recordings merge")


def test_a_shuffled_order_and_other_channels_are_warned_of(written, tmp_path):
    folder, _ = written
    shutil.copytree(folder / "monkeyF", tmp_path / "monkeyF")
    rng = np.random.default_rng(0)
    change("test_MUA_reps", lambda a: a[:, rng.permutation(N_TEST)])(tmp_path / "monkeyF")
    change("reliab", lambda a: a[:, rng.permutation(N_CHANNELS)])(tmp_path / "monkeyF")
    run = nrp_onnx(
        "recordings", "import", tmp_path / "monkeyF", "--images", folder / "things",
        "-o", tmp_path / "out",
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    assert "reliab of THINGS_normMUA.mat is not that of test_MUA_reps" in run.stderr
    assert "the order of the images of the part test looks shuffled" in run.stderr
    assert "of the part train" not in run.stderr
