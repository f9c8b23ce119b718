"""A public set of the size of MajajHong2015: 148,480 presentations, 256 sites, 3,200 stimuli."""

import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest

from nrp_onnx.recordings import load_recordings
from tests.recordings.brainio_file import write_brainio
from tests.recordings.file_server import serve
from tests.recordings.peak_memory import Ended, run_measured
from tests.recordings.public_set import ROLES, make_recordings, registry_of

MOST_BYTES = 1.5e9
#: 0.6 GB of libraries and recordings, and the fits' matrices of images by images.
MOST_BYTES_OF_A_SCORE = 1.8e9


@pytest.mark.slow
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
        fetched = run(["recordings", "fetch", "majajhong2015"], tmp_path, environment)
        assert len(server.requests) == 3
    folder = Path(fetched.stdout.strip())
    words = ["score", str(model_path), "--recordings", "majajhong2015", "--search", "quick"]
    words += ["--layers", "3", "--folds", "2", "--json", "-o", str(tmp_path / "run")]
    scored = run(words, tmp_path, environment)
    with capfd.disabled():
        print(f"\nfetch and import: {fetched}\nscore: {scored}")
    assert fetched.peak_bytes < MOST_BYTES
    assert scored.peak_bytes < MOST_BYTES_OF_A_SCORE
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


def run(words: list[str], folder: Path, environment: dict[str, str]) -> Ended:
    return run_measured([sys.executable, "-m", "nrp_onnx", *words], folder, environment)


def test_the_measure_is_not_that_of_this_process(tmp_path):
    held = np.ones(40_000_000)
    python = [sys.executable, "-c"]
    small = run_measured([*python, "print('done')"], tmp_path, dict(os.environ))
    assert small.stdout == "done\n"
    assert small.peak_bytes < 100e6 < held.nbytes
    large = run_measured([*python, "x = b'1' * 200_000_000"], tmp_path, dict(os.environ))
    assert 200e6 < large.peak_bytes < 300e6
