"""Arrays on disk against the same arrays in memory."""

import copy
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch

from nrp_onnx.predictor.rows_on_disk import RowsOnDisk


def test_rows_are_those_of_an_array_in_memory(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    expected = rng.standard_normal((300, 5, 7)).astype(np.float32)
    rows = RowsOnDisk((300, 5, 7), tmp_path)
    assert not np.asarray(rows).any()
    rows[np.arange(0, 300, 2)] = expected[::2]
    rows[np.arange(1, 300, 2)] = expected[1::2]
    rows[10:20] = np.ones((5, 7), np.float32)
    expected[10:20] = 1
    places = rng.permutation(300)[:50]
    assert len(rows) == 300
    np.testing.assert_array_equal(np.asarray(rows), expected)
    np.testing.assert_array_equal(rows[places], expected[places])
    np.testing.assert_array_equal(rows[290:400], expected[290:])
    np.testing.assert_array_equal(rows[np.array([], int)], expected[:0])
    found = rows[torch.from_numpy(places)]
    assert isinstance(found, torch.Tensor)
    np.testing.assert_array_equal(found.numpy(), expected[places])
    np.testing.assert_array_equal(copy.copy(rows), expected)  # what another process gets
    # The file has no name, so that nothing can be left behind.
    assert list(tmp_path.iterdir()) == []


def test_threads_read_what_they_ask_for(tmp_path: Path) -> None:
    rows = RowsOnDisk((1000, 64), tmp_path)
    expected = np.arange(64000, dtype=np.float32).reshape(1000, 64)
    rows[:] = expected

    def differs(seed: int) -> bool:
        places = np.random.default_rng(seed).permutation(1000)
        return bool((rows[places] != expected[places]).any())

    with ThreadPoolExecutor(4) as pool:
        assert not any(pool.map(differs, range(40)))
