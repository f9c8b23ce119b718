"""A public set of the size of MajajHong2015: 148,480 presentations, 256 sites, 3,200 stimuli."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from nrp_onnx.recordings import load_recordings
from tests.recordings.brainio_file import write_brainio
from tests.recordings.file_server import serve
from tests.recordings.public_set import ROLES, make_recordings, registry_of

MOST_BYTES = 1.5e9


@pytest.mark.full_size
def test_a_set_of_full_size_is_fetched_and_scored(tmp_path, model_path, capfd):
    counts = np.full(3200, 46)
    counts[:1280] += 1
    counts += np.tile([4, -4], 1600)
    recordings = make_recordings(tmp_path / "images", counts, {"V4": 88, "IT": 168}, pixels=32)
    assert recordings.responses.shape == (148_480, 256)
    paths = dict(zip(ROLES, write_brainio(tmp_path / "served", recordings), strict=True))
    known = recordings.averages
    with serve() as server:
        server.files = {f"/{path.name}": path.read_bytes() for path in paths.values()}
        (tmp_path / "registry.toml").write_text(registry_of(server.url, paths))
        environment = os.environ | {
            "NRP_ONNX_CACHE": str(tmp_path / "cache"),
            "NRP_ONNX_REGISTRY": str(tmp_path / "registry.toml"),
            "NO_PROXY": "127.0.0.1",
        }
        fetched = run(["recordings", "fetch", "majajhong2015"], environment)
        assert len(server.requests) == 3
    folder = Path(fetched.stdout.strip())
    words = ["score", str(model_path), "--recordings", "majajhong2015", "--search", "quick"]
    words += ["--layers", "3", "--folds", "2", "--json", "-o", str(tmp_path / "run")]
    scored = run(words, environment)
    with capfd.disabled():
        print(f"\nfetch and import: {fetched}\nscore: {scored}")
    assert fetched.peak_bytes < MOST_BYTES
    result = json.loads(scored.stdout)
    assert {name: found["n_sites"] for name, found in result["regions"].items()} == {
        "V4": 88,
        "IT": 168,
    }
    imported = load_recordings(folder)
    assert imported.responses.shape == recordings.responses.shape
    rows = [imported.stimulus_ids.index(name) for name in recordings.stimulus_ids]
    assert imported.site_ids == recordings.site_ids
    np.testing.assert_allclose(imported.averages[rows], known, atol=1e-5)


class Ended:
    """A command that succeeded: what it printed, how long it ran, its peak of memory."""

    def __init__(self, stdout: str, seconds: float, peak_bytes: int) -> None:
        self.stdout, self.seconds, self.peak_bytes = stdout, seconds, peak_bytes

    def __str__(self) -> str:
        return f"{self.seconds:.0f} s, peak {self.peak_bytes / 1e9:.2f} GB"


def run(words: list[str], environment: dict[str, str]) -> Ended:
    start = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-m", "nrp_onnx", *words],
        stdout=subprocess.PIPE,
        env=environment,
        text=True,
    )
    assert process.stdout is not None
    printed = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    return Ended(printed, time.monotonic() - start, usage.ru_maxrss * 1024)
