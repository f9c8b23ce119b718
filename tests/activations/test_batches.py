"""Batch sizes: measured, halved where memory ends, and never a reason for other bits."""

import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

from nrp_onnx.activations.batches import Batches, StartedBatch
from nrp_onnx.activations.session import BoundSession
from nrp_onnx.activations.space import Memory, memory
from nrp_onnx.errors import ModelError
from nrp_onnx.notes import Notes

IMAGES = [np.full((2, 2, 3), place, np.uint8) for place in range(1, 256)]


def means(images: np.ndarray) -> list[np.ndarray]:
    return [images.reshape(len(images), -1).mean(axis=1, keepdims=True).astype(np.float32)]


def run_all(
    run: Callable[[np.ndarray], list[np.ndarray]], n_images: int, reference: int = 16
) -> tuple[Batches, list[int], np.ndarray, Notes]:
    """The sizes that were used on the way, and all rows."""
    notes, sizes, rows = Notes(), [], []
    batches = Batches(run, reference, False, "model.onnx", notes)
    done = 0
    while done < n_images:
        sizes.append(batches.size)
        part = [IMAGES[place % 255] for place in range(done, min(done + batches.size, n_images))]
        rows.append(batches.finish(batches.start(part))[0])
        done += len(part)
    return batches, sizes, np.concatenate(rows)[:, 0], notes


class Clock:
    """Time that only passes while a batch runs, so that a busy machine changes no test."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now

    def slowly(self, seconds: Callable[[int], float]) -> Callable[[np.ndarray], list[np.ndarray]]:
        """Runs batches of n images in ``seconds(n)``."""

        def run(images: np.ndarray) -> list[np.ndarray]:
            self.now += seconds(len(images))
            return means(images)

        return run


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("nrp_onnx.activations.batches.time", clock)
    return clock


def test_larger_batches_that_pay_are_kept(clock: Clock) -> None:
    batches, sizes, rows, _ = run_all(clock.slowly(lambda n: 0.05), 3000)
    assert sizes[:5] == [16, 16, 16, 16, 32]
    assert batches.size == 256
    np.testing.assert_array_equal(rows, np.arange(3000) % 255 + 1)


def test_larger_batches_that_do_not_pay_are_not(clock: Clock) -> None:
    batches, sizes, rows, notes = run_all(clock.slowly(lambda n: n / 500), 400)
    assert batches.size == 16
    assert max(sizes) == 32
    assert "batches of 16 images: 32 are not faster" in notes.said
    np.testing.assert_array_equal(rows, np.arange(400) % 255 + 1)


@pytest.mark.parametrize("from_size", [2, 20])
def test_a_size_that_changes_bits_is_not_taken(from_size: int) -> None:
    def run(images: np.ndarray) -> list[np.ndarray]:
        time.sleep(0.02)
        off = np.float32(1e-6 if len(images) >= from_size else 0)
        return [output * (1 + off) for output in means(images)]

    batches, _, rows, notes = run_all(run, 400)
    assert batches.size == 16
    assert "batches of 16 images: others change the last bits" in notes.said
    # All rows are those of batches of 16.
    expected = np.arange(400, dtype=np.float32) % 255 + 1
    if from_size == 2:
        expected = expected * (1 + np.float32(1e-6))
    np.testing.assert_array_equal(rows, expected)


def test_workers_run_at_a_time_and_keep_order_and_bits() -> None:
    """Batches of a size that changes bits are on their way when that is found out."""
    at_a_time, running, lock = [0], [0], threading.Lock()

    def run(images: np.ndarray) -> list[np.ndarray]:
        with lock:
            running[0] += 1
            at_a_time.append(running[0])
        time.sleep(0.01 * (1 + int(images[0, 0, 0, 0]) % 3))  # later ones may end before
        with lock:
            running[0] -= 1
        off = np.float32(1e-6 if len(images) >= 8 else 0)
        return [output * (1 + off) for output in means(images)]

    notes, rows, done, sizes = Notes(), [], 0, []
    with Batches(run, 4, False, "model.onnx", notes, workers=3) as batches:
        started: deque[StartedBatch] = deque()
        while done < 600 or started:
            while len(started) < 6 and done < 600:
                end = min(done + batches.size, 600)
                sizes.append(end - done)
                started.append(batches.start([IMAGES[i % 255] for i in range(done, end)]))
                done = end
            rows.append(batches.finish(started.popleft())[0])
    assert max(at_a_time) == 3
    assert sizes.count(8) > 1  # more than the one that proves
    assert batches.size == 4
    assert "batches of 4 images: others change the last bits" in notes.said
    expected = np.arange(600, dtype=np.float32)[:, None] % 255 + 1
    np.testing.assert_array_equal(np.concatenate(rows), expected)


def test_batches_are_halved_where_memory_ends() -> None:
    def run(images: np.ndarray) -> list[np.ndarray]:
        if len(images) > 5:
            raise RuntimeError(
                "BFCArena: Failed to allocate memory for requested buffer of size 99"
            )
        return means(images)

    batches, _, rows, notes = run_all(run, 100)
    assert batches.size == 4
    assert "batches of 4 images: 8 need more memory than there is" in notes.said
    np.testing.assert_array_equal(rows, np.arange(100) + 1)


def test_no_memory_for_one_image() -> None:
    def run(images: np.ndarray) -> list[np.ndarray]:
        raise MemoryError

    with pytest.raises(ModelError, match=r"model\.onnx: one image needs more memory"):
        run_all(run, 20)


def test_other_errors_are_the_model_s() -> None:
    def run(images: np.ndarray) -> list[np.ndarray]:
        raise RuntimeError("Non-zero status code returned while running Conv\nmore")

    with pytest.raises(ModelError, match="does not run; found Non-zero status code"):
        run_all(run, 20)


def test_rows_of_images_of_unequal_size_keep_their_order() -> None:
    images = [np.full((2 + place % 3, 2, 3), place, np.uint8) for place in range(10)]
    batches = Batches(means, 16, False, "model.onnx", Notes())
    np.testing.assert_array_equal(batches.finish(batches.start(images))[0][:, 0], np.arange(10))


def test_bound_outputs_are_those_of_a_plain_run(model_path: Path) -> None:
    session = ort.InferenceSession(model_path, providers=["CPUExecutionProvider"])
    given = session.get_inputs()[0].name
    x = np.random.default_rng(0).standard_normal((3, 3, 32, 32)).astype(np.float32)
    bound = BoundSession(session, given, ["1", "3"])
    for batch in (x, x[:2], x):
        for found, expected in zip(
            bound.run(batch), session.run(["1", "3"], {given: batch}), strict=True
        ):
            np.testing.assert_array_equal(found, expected)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux says so in /proc")
def test_memory_is_that_of_the_machine_and_this_process() -> None:
    before = memory()
    held = np.ones(2**24, np.float64)  # 128 MiB
    after = memory()
    assert before is not None
    assert after is not None
    assert after.total == os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert held.nbytes * 0.9 < after.used - before.used < held.nbytes * 1.1
    assert after.used < after.total
    assert 0 < after.available < after.total


def test_memory_is_unknown_where_there_is_no_proc(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then larger batches are tried, and halved where memory ends."""
    monkeypatch.setattr("nrp_onnx.activations.space._PROC", Path("/nowhere"))
    assert memory() is None
    assert run_all(clock.slowly(lambda n: 0.05), 3000)[0].size == 256


def test_no_larger_batches_where_memory_is_short(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    short = Memory(total=2**30, available=2**20, used=2**20)
    monkeypatch.setattr("nrp_onnx.activations.batches.memory", lambda: short)
    batches, _, _, notes = run_all(clock.slowly(lambda n: 0.05), 200)
    assert batches.size == 16
    assert any("not fit into memory" in note for note in notes.said)
