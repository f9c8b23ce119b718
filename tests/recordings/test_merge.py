"""Several recordings as one: stimuli that are shared or not, sites that stay apart."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from nrp_onnx.recordings import (
    Recordings,
    load_recordings,
    merge_recordings,
    save_recordings,
    validate_recordings,
)
from tests.command_line import assert_one_line_error, nrp_onnx
from tests.recordings.conftest import write_images

Make = Callable[..., Path]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Writes a folder of some stimuli, 2 sites, some repetitions, with random responses."""
    write_images(tmp_path / "pictures", [f"{name}.png" for name in "abcdef"])

    def save(name: str, stimuli: str, n_repetitions: int = 1, **fields) -> Path:
        rng = np.random.default_rng(len(name) + ord(name[0]))
        n = len(stimuli)
        facts = {
            "stimulus_labels": {}, "site_ids": ("x", "y"), "regions": ("V4", "IT"),
            "site_labels": {}, "units": "spikes",
        } | fields  # fmt: skip
        recordings = Recordings(
            name=name,
            stimulus_ids=tuple(stimuli),
            stimulus_paths=tuple(tmp_path / "pictures" / f"{s}.png" for s in stimuli),
            responses=rng.normal(size=(n * n_repetitions, 2)).astype(np.float32),
            presentation_stimulus=np.repeat(np.arange(n), n_repetitions),
            repetition=np.tile(np.arange(n_repetitions, dtype=np.int32), n),
            **facts,
        )
        save_recordings(recordings, tmp_path / name)
        return tmp_path / name

    return save


def test_shared_stimuli_become_one_and_what_is_missing_is_nan(make, tmp_path):
    one, two = make("one", "abc", 2), make("two", "bcd", 3)
    read = merge_recordings([one, two], tmp_path / "out")
    assert read.stimulus_ids == ("a", "b", "c", "d")
    assert len(read.responses) == 2 + 3 + 3 + 3, "presentations of a repetition are one row"
    first, second = load_recordings(one).averages, load_recordings(two).averages
    expected = np.full((4, 4), np.nan)
    expected[:3, :2], expected[1:, 2:] = first, second
    np.testing.assert_allclose(read.averages, expected)
    assert read.repetition_counts().tolist() == [
        [2, 2, 0, 0], [2, 2, 3, 3], [2, 2, 3, 3], [0, 0, 3, 3]
    ]  # fmt: skip
    assert len(list((tmp_path / "out" / "stimuli").iterdir())) == 4
    assert validate_recordings(tmp_path / "out") == []


def test_sites_and_sessions_stay_apart(make, tmp_path, caplog):
    labels = {"animal": ("M", "M"), "session": ("mon", "mon")}
    folders = [
        make("one", "ab", site_labels=labels),
        make("two", "cd", site_labels={"animal": ("M", "M"), "depth": ("1", "2")}),
        make("six", "ef", site_ids=("z", "y")),
    ]
    read = merge_recordings(folders, tmp_path / "out", name="all")
    assert read.site_ids == ("mon_x", "mon_y", "two_x", "two_y", "z", "six_y")
    assert read.site_labels == {
        "animal": ("M",) * 4 + ("", ""),
        "session": ("mon", "mon", "two", "two", "six", "six"),
        "depth": ("", "", "1", "2", "", ""),
    }
    assert read.regions == ("V4", "IT") * 3
    assert read.name == "all"
    assert "2 site ids come twice and are prefixed, such as 'x'" in caplog.text


def test_facts_that_differ_are_left_unknown_with_a_note(make, tmp_path, caplog):
    folders = [
        make("one", "ab", visual_degrees=8.0, citation="A", time_window_ms=(50.0, 150.0)),
        make("two", "cd", visual_degrees=17.3, citation="B", time_window_ms=(50.0, 150.0)),
    ]
    read = merge_recordings(folders, tmp_path / "out")
    assert read.visual_degrees is None
    assert read.time_window_ms == (50, 150)
    assert read.citation == "A; B"
    assert "visual_degrees differs (8, 17.3)" in caplog.text.replace("8.0", "8")
    assert [part["visual_degrees"] for part in read.provenance["merged"]] == [8, 17.3]


def test_splits_are_joined(make, tmp_path):
    one = make("one", "ab", stimulus_labels={"split": ("train", "test")})
    two = make("two", "bc", stimulus_labels={"split": ("test", "train"), "kind": ("k", "l")})
    for folder, ids in ((one, "ab"), (two, "bc")):
        splits = {"tau": {"train": list(ids[:1]), "test": []}, folder.name: {"train": [ids[0]]}}
        (folder / "splits.json").write_text(json.dumps(splits))
    (two / "splits.json").write_text(json.dumps({"tau": {"train": ["c"], "test": ["b"]}}))
    read = merge_recordings([one, two], tmp_path / "out")
    assert read.stimulus_labels == {"split": ("train", "test", "train"), "kind": ("", "k", "l")}
    assert json.loads((tmp_path / "out" / "splits.json").read_text()) == {
        "tau": {"train": ["a", "c"], "test": ["b"], "ood": []},
        "one": {"train": ["a"], "test": [], "ood": []},
    }


def other_image(make: Make, tmp_path: Path) -> list[Path]:
    one = make("one", "ab")
    (tmp_path / "pictures" / "b.png").write_bytes((tmp_path / "pictures" / "c.png").read_bytes())
    return [one, make("two", "bd")]


def other_part(make: Make, tmp_path: Path) -> list[Path]:
    return [
        make("one", "ab", stimulus_labels={"split": ("train", "test")}),
        make("two", "bc", stimulus_labels={"split": ("train", "test")}),
    ]


def other_named_part(make: Make, tmp_path: Path) -> list[Path]:
    folders = [make("one", "ab"), make("two", "bc")]
    for folder, part in zip(folders, ("train", "test"), strict=True):
        (folder / "splits.json").write_text(json.dumps({"tau": {part: ["b"]}}))
    return folders


def no_splits(make: Make, tmp_path: Path) -> list[Path]:
    folders = [make("one", "ab"), make("two", "bc")]
    (folders[1] / "splits.json").write_text('{"tau": ["b"]}')
    return folders


@pytest.mark.parametrize(
    ("prepare", "says"),
    [
        (other_image, "the stimulus 'b' has two images"),
        (other_part, "two: the stimulus 'b' is in two parts of the split; expected test, as "),
        (other_named_part, "1 stimuli come twice in the split 'tau'"),
        (no_splits, "splits.json: these are no splits"),
        (lambda make, _: [make("one", "ab"), make("two", "cd", units="z")],
         "two: units differ between the recordings; expected 'spikes'"),
        (lambda make, _: [make("one", "ab")], "recordings merge: there is nothing to merge"),
        (lambda make, tmp: [make("one", "ab"), tmp / "none"], "none: no such recordings"),
    ],
)  # fmt: skip
def test_what_contradicts_itself_is_refused_in_one_line(make, tmp_path, prepare, says):
    folders = prepare(make, tmp_path)
    run = nrp_onnx("recordings", "merge", *folders, "-o", tmp_path / "out")
    assert_one_line_error(run, says)
    assert not (tmp_path / "out").exists()


def test_the_command_says_what_it_made(make, tmp_path):
    run = nrp_onnx(
        "recordings", "merge", make("one", "ab"), make("two", "cd"), "-o", tmp_path / "o"
    )
    assert run.stdout == f"{tmp_path / 'o'}: 4 stimuli, 4 sites\n"
