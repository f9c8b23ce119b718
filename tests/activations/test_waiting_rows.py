"""Rows that wait for a whole step are on disk, and are taken only where they belong."""

from collections.abc import Sequence
from errno import ENOSPC
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nrp_onnx.activations import batches, layer_writer
from nrp_onnx.activations.batches import Batches, StartedBatch
from nrp_onnx.activations.compute import stream_activations
from nrp_onnx.activations.images import ImageFolder
from nrp_onnx.activations.layer_writer import LayerPart, LayerParts, WaitingRows, forget_part
from nrp_onnx.activations.session import BoundSession
from nrp_onnx.api import extract_with
from nrp_onnx.errors import ModelError, OutputError
from nrp_onnx.notes import Notes
from tests.activations.conftest import options

FEATURES = [3, 5]
FACTS = [{"layer": "a"}, {"layer": "b"}]
IDS = [f"{place:03d}" for place in range(75)]
ROWS = [np.random.default_rng(0).standard_normal((75, n)).astype(np.float32) for n in FEATURES]


class KilledError(Exception):
    pass


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file with the rows 16 to 24, in two records."""
    path = tmp_path / "waiting"
    rows = WaitingRows(path, FEATURES, FACTS)
    assert rows.take(IDS[:16], 4) == ([], [])
    for start in (16, 20):
        rows.append(IDS[start : start + 4], [layer[start : start + 4] for layer in ROWS])
    rows.close()
    return path


def taken(path: Path, n_done: int = 16, batch: int = 4, facts: Any = FACTS) -> int:
    """How many rows are taken; they are the right ones."""
    rows = WaitingRows(path, FEATURES, facts)
    ids, found = rows.take(IDS[:n_done], batch)
    rows.close()
    assert ids == IDS[n_done : n_done + len(ids)]
    for layer, expected in zip(found, ROWS, strict=bool(ids)):
        np.testing.assert_array_equal(layer, expected[n_done : n_done + len(ids)])
    return len(ids)


def test_rows_are_taken_where_they_belong(path: Path) -> None:
    assert taken(path) == 8
    assert taken(path) == 8  # as often as a run is killed
    assert taken(path, n_done=12) == 0
    assert path.stat().st_size == 0


def test_what_follows_what_was_taken(path: Path) -> None:
    rows = WaitingRows(path, FEATURES, FACTS)
    rows.take(IDS[:16], 4)
    rows.append(IDS[24:28], [layer[24:28] for layer in ROWS])
    rows.close()
    assert taken(path) == 12


@pytest.mark.parametrize("batch", [5, 24, 6])
def test_only_whole_batches_are_taken(path: Path, batch: int) -> None:
    assert taken(path, batch=batch) == {5: 4, 24: 8, 6: 8}[batch]


@pytest.mark.parametrize("end", [1, 50, 130])
def test_torn_records_are_dropped(path: Path, end: int) -> None:
    whole = path.read_bytes()
    path.write_bytes(whole[:-end])
    assert taken(path) == 4
    # After a power cut, pages may be there that were never written.
    path.write_bytes(whole[:-end] + bytes(end + 1000))
    assert taken(path) == 4
    path.write_bytes(bytes(4096))
    assert taken(path) == 0


def test_each_byte_counts(path: Path) -> None:
    whole = path.read_bytes()
    for place in range(len(whole)):
        broken = bytearray(whole)
        broken[place] ^= 0x11
        path.write_bytes(broken)
        assert taken(path) == (0 if place < len(whole) // 2 else 4)


def test_other_facts_are_not_mixed(path: Path) -> None:
    whole = path.read_bytes()
    assert taken(path, facts=[FACTS[0], {"layer": "c"}]) == 0
    path.write_bytes(whole)
    assert taken(path, facts=FACTS[::-1]) == 0


def test_other_versions_are_not_mixed(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layer_writer, "_VERSION", 0)
    assert taken(path) == 0


def test_rows_that_wait_on_take_the_place_of_all(path: Path) -> None:
    size = path.stat().st_size
    rows = WaitingRows(path, FEATURES, FACTS)
    rows.take(IDS[:16], 4)
    rows.restart(IDS[19], IDS[20:24], [layer[20:24] for layer in ROWS])
    assert path.stat().st_size == size // 2
    rows.append(IDS[24:28], [layer[24:28] for layer in ROWS])
    rows.close()
    assert taken(path, n_done=20) == 8


def test_rows_that_are_in_a_step_already_are_left_out(path: Path) -> None:
    """As when a run was killed after a step, before the file was written over."""
    assert taken(path, n_done=18, batch=2) == 6
    assert taken(path, n_done=24) == 0


def test_the_file_does_not_grow(tmp_path: Path) -> None:
    """Also of batches that end in no step."""
    ids, sizes = [f"{place:05d}" for place in range(804)], []
    with LayerParts([tmp_path / "a.parquet"], [100], [{"layer": "a"}], 4) as parts:
        for start in (0, *range(4, 804, 8)):
            some = ids[start : start + (8 if start else 4)]
            parts.write(some, [np.zeros((len(some), 100), np.float32)])
            parts.write_steps()
            sizes.append((tmp_path / ".part" / "waiting").stat().st_size)
    assert max(sizes) < 24 * 4 * 100 + 3 * 500
    assert len(LayerParts([tmp_path / "a.parquet"], [100], [{"layer": "a"}], 4).stimulus_ids) == 804


def test_older_records_follow_nothing(path: Path) -> None:
    """The file is written over from its beginning: a record of the same size, an older one after it."""
    rows = WaitingRows(path, FEATURES, FACTS)
    rows.take(IDS[:16], 4)
    rows.restart(IDS[31], [], [])
    rows.append(IDS[32:36], [layer[32:36] for layer in ROWS])
    rows.close()
    size = path.stat().st_size
    assert taken(path, n_done=32) == 4
    assert path.stat().st_size == size // 2
    assert taken(path) == 0


def written(folder: Path, batch: int, kill_at: int | None = None) -> tuple[int, int]:
    """Write what is not there in batches; "killed" at a call that writes.

    Returns:
        How many rows were on disk before, and after; all of them if it was not killed.
    """
    calls = count()

    def killing(method: Any) -> Any:
        def call(self: Any, *given: Any) -> None:
            if next(calls) == kill_at:
                raise KilledError
            method(self, *given)

        return call

    paths = [folder / "a.parquet", folder / "b.parquet"]
    with pytest.MonkeyPatch.context() as patch:
        for kind, name in (
            (LayerPart, "append"),
            (WaitingRows, "append"),
            (WaitingRows, "restart"),
        ):
            patch.setattr(kind, name, killing(getattr(kind, name)))
        try:
            parts = LayerParts(paths, FEATURES, FACTS, batch)
        except KilledError:  # where it opens, whole steps that waited are written
            return len(IDS), 0
        n_done = end = len(parts.stimulus_ids)
        assert parts.stimulus_ids == IDS[:n_done]
        with parts:
            try:
                for start in range(n_done, len(IDS), batch):
                    rows = slice(start, start + batch)
                    parts.write(IDS[rows], [layer[rows] for layer in ROWS])
                    end = min(start + batch, len(IDS))
                    parts.write_steps()
                parts.finish()
            except KilledError:
                return n_done, end
    return n_done, 10**9


@pytest.mark.parametrize("batch", [3, 4, 10, 16, 24, 32])
def test_killed_at_each_write(tmp_path: Path, batch: int) -> None:
    """Between any two layers, steps and waiting rows; then again and again, at once."""
    written(tmp_path / "whole", batch)
    for kill_at in count():
        folder, kept = tmp_path / str(kill_at), 0
        for moment in (kill_at, 0, 1, 2, None):
            found, now = written(folder, batch, moment)
            assert found > kept - batch  # what was on disk, in whole batches
            kept = now
            if now > len(IDS):
                break
        for name in ("a.parquet", "b.parquet"):
            assert (folder / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
        assert not (folder / ".part").exists()
        if moment == kill_at:  # there is no such moment any more
            break


def counted(monkeypatch: pytest.MonkeyPatch, most: int = 10**9) -> list[int]:
    """Have the session count its images, and fail before it computes more than so many."""
    sizes: list[int] = []
    run = BoundSession.run

    def counting(self: BoundSession, images: np.ndarray) -> list[np.ndarray]:
        if sum(sizes) + len(images) > most:
            raise RuntimeError("enough")
        sizes.append(len(images))
        return run(self, images)

    monkeypatch.setattr(BoundSession, "run", counting)
    return sizes


def test_a_run_that_goes_on_takes_waiting_rows(
    model_path: Path,
    images: Path,
    activations: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # one lane
    monkeypatch.setattr(batches, "MAXIMUM", 4)
    with monkeypatch.context() as patch:
        counted(patch, 26)  # 24, one of them once more alone, and a part of a batch
        with pytest.raises(ModelError, match="enough"):
            extract_with(model_path, images, tmp_path, options())
    sizes = counted(monkeypatch)
    extract_with(model_path, images, tmp_path, options())
    assert sum(sizes) == 70 - 24 + 1
    for name in ("1.parquet", "3.parquet"):
        assert (tmp_path / name).read_bytes() == (activations / name).read_bytes()
    assert sorted(left.name for left in tmp_path.iterdir()) == [".lock", "1.parquet", "3.parquet"]


def test_a_disk_that_is_full_for_waiting_rows(
    model_path: Path, images: Path, activations: Path, tmp_path: Path
) -> None:
    whole, calls = WaitingRows.append, iter([False, False, True])

    def append(self: WaitingRows, *given: Any) -> None:
        if next(calls):
            raise OSError(ENOSPC, "No space left on device")
        whole(self, *given)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(WaitingRows, "append", append)
        with pytest.raises(OutputError, match=r"the disk is full.*goes on where it stopped"):
            extract_with(model_path, images, tmp_path, options())
    extract_with(model_path, images, tmp_path, options())
    assert (tmp_path / "1.parquet").read_bytes() == (activations / "1.parquet").read_bytes()


def test_rows_that_wait_for_no_part_are_removed(path: Path, tmp_path: Path) -> None:
    (tmp_path / ".part").mkdir()
    path.rename(tmp_path / ".part" / "waiting")
    (tmp_path / ".part" / "waiting.new").touch()
    part = LayerPart(tmp_path / "b.parquet", 3, FACTS[0])
    part.open(0)
    part.close()
    forget_part(tmp_path / "a.parquet")
    assert (tmp_path / ".part" / "waiting").exists()
    forget_part(tmp_path / "b.parquet")
    assert not (tmp_path / ".part").exists()


@pytest.mark.parametrize("lanes", [1, 3])
def test_no_more_batches_are_begun_than_may_be_lost(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lanes: int
) -> None:
    unwritten, most, write, start = [0], [0], LayerParts.write, Batches.start

    def starting(self: Batches, given: Sequence[np.ndarray]) -> StartedBatch:
        unwritten[0] += 1
        most.append(unwritten[0])
        return start(self, given)

    def writing(self: LayerParts, ids: Sequence[str], outputs: Sequence[np.ndarray]) -> None:
        write(self, ids, outputs)
        unwritten[0] -= 1

    def run(pixels: np.ndarray) -> list[np.ndarray]:
        return [np.zeros((len(pixels), n), np.float32) for n in FEATURES]

    monkeypatch.setattr(Batches, "start", starting)
    monkeypatch.setattr(LayerParts, "write", writing)
    stimuli, names = ImageFolder(images), ["a", "b"]
    with LayerParts([tmp_path / name for name in names], FEATURES, FACTS, 4) as parts:
        some = Batches(run, 4, False, "model", Notes(), lanes)
        stream_activations(some, parts, names, stimuli, 0, False, tmp_path, Notes())
    assert max(most) == 2 * lanes
    assert (tmp_path / "a").is_file()
