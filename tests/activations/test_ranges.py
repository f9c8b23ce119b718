"""Ranges of stimuli on disk: whole or not there, taken where they belong, joined to the same bytes."""

import contextlib
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from nrp_onnx.activations import batches, layer_writer
from nrp_onnx.activations.layer_writer import (
    LayerRanges,
    Range,
    RangeWriter,
    finished_ranges,
    gaps,
    join_ranges,
    remove_ranges,
)
from nrp_onnx.activations.session import BoundSession
from nrp_onnx.api import extract_with
from nrp_onnx.engine import LocalEngine
from nrp_onnx.errors import ModelError, RecordingsError
from tests.activations.conftest import options

FEATURES = [3, 5]
IDS = [f"{place:03d}" for place in range(75)]
ROWS = [np.random.default_rng(0).standard_normal((75, n)).astype(np.float32) for n in FEATURES]


class KilledError(Exception):
    pass


def layers_of(folder: Path, version: int = 1) -> list[LayerRanges]:
    return [
        LayerRanges(folder / f"{name}.parquet", n, {"layer": name, "version": version})
        for name, n in zip("ab", FEATURES, strict=True)
    ]


def write(layers: Sequence[LayerRanges], places: Range, batch: int, seconds: float) -> list[Range]:
    """Write rows, ``batch`` at a time."""
    start, end = places
    with RangeWriter(layers, start, batch, seconds) as ranges:
        for first in range(start, end, batch):
            rows = slice(first, min(first + batch, end))
            ranges.write(IDS[rows], [layer[rows] for layer in ROWS], rows.stop)
        ranges.finish(end)
    return ranges.finished


def extract_all(folder: Path, batch: int, seconds: float) -> int:
    """Write what is not there, as an extraction does; how many rows were there."""
    layers = []
    for layer in layers_of(folder):
        if layer.path.is_file():
            remove_ranges(layer.path)
        else:
            layers.append(layer)
    if not layers:
        return 0
    ranges = finished_ranges(layers)
    found = sum(end - start for start, end in ranges)
    for places in gaps(ranges, len(IDS)):
        ranges += write(layers, places, batch, seconds)
    for layer in layers:
        join_ranges(sorted(ranges), layer)
    return found


def assert_whole(folder: Path) -> None:
    for name, expected in zip("ab", ROWS, strict=True):
        table = pq.read_table(folder / f"{name}.parquet")
        assert table["stimulus_id"].to_pylist() == IDS
        found = np.stack(table["activation"].to_numpy(zero_copy_only=False))
        np.testing.assert_array_equal(found, expected)
    assert sorted(path.name for path in folder.iterdir()) == ["a.parquet", "b.parquet"]


def same(folder: Path, other: Path) -> bool:
    names = ["a.parquet", "b.parquet"]
    return all((folder / name).read_bytes() == (other / name).read_bytes() for name in names)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds that pass only when a test says so."""
    now = [0.0]
    monkeypatch.setattr(layer_writer.time, "perf_counter", lambda: now[0])  # type: ignore[attr-defined]
    return now


def test_a_range_ends_after_its_seconds_with_a_whole_batch(
    tmp_path: Path, clock: list[float]
) -> None:
    """Of twenty seconds, where rows come every three."""
    with RangeWriter(layers_of(tmp_path), 0, 4, seconds=20) as ranges:
        first = 0
        for n_rows in (4, 4, 4, 4, 4, 4, 2, 2, 8, 8, 8, 8, 8, 4, 3):
            clock[0] += 3
            rows = slice(first, first + n_rows)
            ranges.write(IDS[rows], [layer[rows] for layer in ROWS], rows.stop)
            first += n_rows
            on_disk = [layer.found() for layer in layers_of(tmp_path)]
            assert on_disk == [set(ranges.finished)] * 2
        ranges.finish(len(IDS))
    # After 21 s there are 26 rows; two more make a whole batch.
    assert ranges.finished == [(0, 28), (28, 75)]


def test_no_range_is_empty(tmp_path: Path) -> None:
    assert write(layers_of(tmp_path), (0, 24), 8, seconds=0) == [(0, 8), (8, 16), (16, 24)]


@pytest.mark.parametrize("batch", [1, 3, 4, 16, 24, 75, 100])
@pytest.mark.parametrize("seconds", [0, 1e9])
def test_the_bytes_do_not_depend_on_the_ranges(tmp_path: Path, batch: int, seconds: float) -> None:
    """Ranges of one batch, or one range of all."""
    assert extract_all(tmp_path / "whole", 16, 1e9) == 0
    assert extract_all(tmp_path / "other", batch, seconds) == 0
    assert_whole(tmp_path / "other")
    assert same(tmp_path / "other", tmp_path / "whole")


@pytest.mark.parametrize(("n_features", "expected"), [(3, [16, 16, 8]), (2**20 // 5, [5] * 8)])
def test_row_groups_have_sixteen_rows_or_four_mebibytes(
    tmp_path: Path, n_features: int, expected: list[int]
) -> None:
    writer = layer_writer.LayerWriter(tmp_path / "layer.parquet", n_features, {})
    for n_rows in (1, 19, 20):
        writer.write(["x"] * n_rows, np.zeros((n_rows, n_features), np.float32))
    writer.close()
    metadata = pq.read_metadata(tmp_path / "layer.parquet")
    found = [metadata.row_group(place).num_rows for place in range(metadata.num_row_groups)]
    assert found == expected


def killing(patch: pytest.MonkeyPatch, kill_at: int | None) -> list[str]:
    """Raise at a call of all that change what is on disk, and tidy nothing up; what was called."""
    called: list[str] = []

    def patched(owner: Any, name: str) -> None:
        method = getattr(owner, name)

        def call(*given: Any, **named: Any) -> Any:
            called.append(name)
            if len(called) - 1 == kill_at:
                raise KilledError
            return method(*given, **named)

        patch.setattr(owner, name, call)

    for owner, name in (
        (layer_writer._RangeFile, "write"),
        (layer_writer._RangeFile, "finish"),
        (layer_writer.LayerWriter, "write"),
        (layer_writer, "_remove"),
        (Path, "replace"),
    ):
        patched(owner, name)
    patch.setattr(layer_writer._RangeFile, "remove", lambda self: self._file.close())
    return called


def test_killed_at_each_write(tmp_path: Path) -> None:
    """And again and again at once: what is whole is kept, and the bytes are the same."""
    with pytest.MonkeyPatch.context() as patch:
        called = killing(patch, None)
        extract_all(tmp_path / "whole", 20, 0)
        n_moments = len(called)
    assert n_moments > 40
    for kill_at in range(n_moments):
        folder, kept = tmp_path / str(kill_at), 0
        for moment in (kill_at, 0, 3, 10):
            with pytest.MonkeyPatch.context() as patch:
                killing(patch, moment)
                with contextlib.suppress(KilledError):
                    extract_all(folder, 20, 0)
            left = [layer for layer in layers_of(folder) if not layer.path.is_file()]
            whole = min((len(layer.found()) for layer in left), default=10)
            assert whole >= kept
            kept = whole
        extract_all(folder, 20, 0)
        assert_whole(folder)
        assert same(folder, tmp_path / "whole")


def test_ranges_of_other_facts_are_removed(tmp_path: Path) -> None:
    write(layers_of(tmp_path), (0, 40), 8, seconds=0)
    assert finished_ranges(layers_of(tmp_path, version=2)) == []
    assert finished_ranges(layers_of(tmp_path)) == []


def test_ranges_that_not_all_layers_have_are_removed(tmp_path: Path) -> None:
    one, other = layers_of(tmp_path)
    write([one, other], (0, 40), 8, seconds=0)
    other.file((8, 16)).unlink()
    assert finished_ranges([one, other]) == [(0, 8), (16, 24), (24, 32), (32, 40)]
    assert gaps(finished_ranges([one, other]), 75) == [(8, 16), (40, 75)]
    assert not one.file((8, 16)).exists()
    # The other layers are none of its business.
    assert finished_ranges([one]) == finished_ranges([other])
    extract_all(tmp_path, 8, 0)
    assert_whole(tmp_path)


def test_torn_files_are_removed(tmp_path: Path) -> None:
    one, other = layers_of(tmp_path)
    write([one, other], (0, 40), 8, seconds=0)
    whole = one.file((8, 16)).read_bytes()
    one.file((8, 16)).write_bytes(whole[:-1])
    one.file((16, 24)).write_bytes(b"")
    other.file((24, 32)).write_bytes(bytes(len(whole)))
    assert finished_ranges([one, other]) == [(0, 8), (32, 40)]
    extract_all(tmp_path, 8, 0)
    assert_whole(tmp_path)


def test_ranges_of_two_runs_that_overlap(tmp_path: Path) -> None:
    """As where a machine of a cluster was thought to be lost."""
    write(layers_of(tmp_path), (0, 40), 8, seconds=0)
    write(layers_of(tmp_path), (20, 60), 12, seconds=0)
    assert finished_ranges(layers_of(tmp_path))[-3:] == [(32, 40), (44, 56), (56, 60)]
    extract_all(tmp_path, 8, 0)
    assert_whole(tmp_path)


def test_images_that_were_left_out(tmp_path: Path) -> None:
    """Before, in and after a range; a last range may have no rows."""
    layers = layers_of(tmp_path)
    with RangeWriter(layers, 0, 2, seconds=0) as ranges:
        for rows in ([1, 2], [5, 6]):
            ranges.write(
                [IDS[place] for place in rows], [layer[rows] for layer in ROWS], rows[-1] + 1
            )
        ranges.finish(9)
    assert ranges.finished == [(0, 3), (3, 7), (7, 9)]
    assert gaps(finished_ranges(layers), 9) == []
    assert layers[0].stimulus_ids(ranges.finished) == ["001", "002", "005", "006"]
    join_ranges(ranges.finished, layers[1])
    assert pq.read_table(layers[1].path)["stimulus_id"].to_pylist() == ["001", "002", "005", "006"]


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


def test_a_run_that_goes_on_computes_the_rest(
    model_path: Path,
    images: Path,
    activations: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # one batch at a time
    monkeypatch.setattr(batches, "MAXIMUM", 4)
    monkeypatch.setattr("nrp_onnx.activations.extract.RANGE_SECONDS", 0)
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


class Tasks(LocalEngine):
    """An engine whose tasks are those of a cluster, and run in this process."""

    remote = True


@pytest.mark.parametrize("engines", [(LocalEngine, Tasks), (Tasks, LocalEngine), (Tasks, Tasks)])
def test_a_run_goes_on_with_another_engine(
    model_path: Path,
    images: Path,
    activations: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    engines: tuple[type[LocalEngine], type[LocalEngine]],
) -> None:
    """70 images are two shards of a cluster: 64 and 6."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr(batches, "MAXIMUM", 4)
    monkeypatch.setattr("nrp_onnx.activations.extract.RANGE_SECONDS", 0)
    first, second = engines
    n_done = 24 if first is LocalEngine else 64
    with monkeypatch.context() as patch:
        patch.setattr("nrp_onnx.api.open_engine", lambda *_: first())
        counted(patch, n_done + 2)
        with pytest.raises(ModelError, match="enough"):
            extract_with(model_path, images, tmp_path, options())
    monkeypatch.setattr("nrp_onnx.api.open_engine", lambda *_: second())
    sizes = counted(monkeypatch)
    extract_with(model_path, images, tmp_path, options())
    n_sessions = 2 if engines == (LocalEngine, Tasks) else 1  # each runs an image once more alone
    assert sum(sizes) == 70 - n_done + n_sessions
    for name in ("1.parquet", "3.parquet"):
        assert (tmp_path / name).read_bytes() == (activations / name).read_bytes()
    assert not (tmp_path / ".part").exists()


def test_a_run_that_was_killed_while_it_joined_computes_nothing(
    model_path: Path,
    images: Path,
    activations: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The first layer is in its place, the second is not."""

    def join(ranges: Sequence[Range], layer: LayerRanges) -> None:
        if layer.path.name == "3.parquet":
            raise KilledError
        join_ranges(ranges, layer)

    with monkeypatch.context() as patch:
        patch.setattr("nrp_onnx.activations.extract.join_ranges", join)
        with pytest.raises(KilledError):
            extract_with(model_path, images, tmp_path / "killed", options())
    assert [path.name for path in (tmp_path / "killed").glob("*.parquet")] == ["1.parquet"]
    sizes = counted(monkeypatch)
    extract_with(model_path, images, tmp_path / "killed", options())
    assert sizes == []
    for name in ("1.parquet", "3.parquet"):
        assert (tmp_path / "killed" / name).read_bytes() == (activations / name).read_bytes()


def test_what_an_earlier_run_left_out_is_asked_for(
    model_path: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before anything is computed."""
    shutil.copytree(images, tmp_path / "bad")
    (tmp_path / "bad" / "20.png").write_bytes(b"")
    with monkeypatch.context() as patch:
        patch.setattr(layer_writer.LayerWriter, "write", fail)
        with pytest.raises(KilledError):
            extract_with(
                model_path, tmp_path / "bad", tmp_path / "out", options(skip_bad_stimuli=True)
            )
    sizes = counted(monkeypatch)
    with pytest.raises(RecordingsError, match=r"1 stimuli did not open in an earlier run.*20\.png"):
        extract_with(model_path, tmp_path / "bad", tmp_path / "out", options())
    assert sizes == []


def fail(*_: object) -> None:
    raise KilledError
