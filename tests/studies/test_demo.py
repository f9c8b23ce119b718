"""The demo, on fewer stimuli than its default."""

import json
import re
from pathlib import Path

import pytest

from tests.command_line import nrp_onnx

pytestmark = pytest.mark.slow


def test_demo_scores_two_networks_and_says_where_the_files_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NRP_ONNX_CACHE", str(tmp_path / "cache"))
    run = nrp_onnx("demo", "-o", tmp_path / "demo", "--recordings", "simulated:96")
    assert run.returncode == 0, run.stderr
    assert "Training the demo network" in run.stderr
    errors = {}
    for name in ("trained", "untrained"):
        result = json.loads((tmp_path / "demo" / name / "result.json").read_text())
        errors[name] = result["nrp_error"]
        assert result["recordings"]["simulated"]
        assert list(result["regions"]) == ["V4", "IT"]
        assert f"{name}.onnx on simulated:96  SIMULATED" in run.stdout
        assert re.search(rf"^{name} +NRP-error {errors[name]:.3f} ", run.stdout, re.MULTILINE)
        assert str(tmp_path / "demo" / name) in run.stdout
    report = (tmp_path / "demo" / "report.html").read_text()
    assert all(f"{error:.3f}" in report for error in errors.values())
    better = errors["untrained"] > errors["trained"]
    assert ("predicts better" in run.stdout) == better
