"""The files open as they are in the readers that people use."""

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.activations.conftest import rows

N_IMAGES, N_FEATURES = 70, 12 * 8 * 8


@pytest.fixture
def file(activations: Path) -> Path:
    return activations / "3.parquet"


@pytest.fixture
def expected(file: Path) -> np.ndarray:
    return rows(file, tuple(f"{place:02d}.png" for place in range(N_IMAGES)))


def test_pandas(file: Path, expected: np.ndarray) -> None:
    frame = pd.read_parquet(file)
    assert list(frame.columns) == ["stimulus_id", "activation"]
    np.testing.assert_array_equal(np.stack(list(frame["activation"])), expected)


def test_polars(file: Path, expected: np.ndarray) -> None:
    import polars

    frame = polars.read_parquet(file)
    assert frame.schema["activation"] == polars.Array(polars.Float32, N_FEATURES)
    np.testing.assert_array_equal(frame["activation"].to_numpy(), expected)
    assert frame["stimulus_id"][5] == "05.png"


def test_duckdb(file: Path, expected: np.ndarray) -> None:
    import duckdb

    rows = (
        duckdb.connect()
        .execute(
            f"select activation from '{file}' where stimulus_id in ('05.png', '33.png') order by stimulus_id"
        )
        .fetchall()
    )
    np.testing.assert_array_equal(np.array([row[0] for row in rows], np.float32), expected[[5, 33]])


def test_hugging_face_datasets(
    file: Path, expected: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import datasets

    loaded = datasets.Dataset.from_parquet(str(file), cache_dir=str(tmp_path))
    assert loaded.column_names == ["stimulus_id", "activation"]
    assert loaded.features["activation"].length == N_FEATURES
    np.testing.assert_array_equal(loaded.with_format("numpy")[33]["activation"], expected[33])


def test_none_of_them_is_imported_to_extract(model_path: Path) -> None:
    import subprocess

    code = "import sys, nrp_onnx.activations.extract; print(*({'torch', 'polars', 'duckdb', 'datasets'} & set(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == ""
