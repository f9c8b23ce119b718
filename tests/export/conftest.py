"""A run that several modules export from."""

from pathlib import Path

import pytest

from tests.command_line import nrp_onnx


@pytest.fixture(scope="session")
def run_folder(
    model_path: Path, recordings_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The small recordings, a fifth of them held out once."""
    out = tmp_path_factory.mktemp("exported") / "run"
    run = nrp_onnx(
        "score", model_path, "--recordings", recordings_folder, "-o", out, "--search", "quick",
        "--protocol", "paper", "--no-report",
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    return out
