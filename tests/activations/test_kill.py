"""An extraction that is killed at any moment goes on, and ends as one that was not."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.activations.kill_driver import N_IMAGES

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform == "win32", reason="Windows has no fork and no SIGKILL"),
]

N_KILLS = 20


def test_killed_at_twenty_moments(model_path: Path, tmp_path: Path) -> None:
    images = tmp_path / "images"
    images.mkdir()
    rng = np.random.default_rng(0)
    for place in range(N_IMAGES):
        pixels = rng.integers(0, 256, (12, 12, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(images / f"{place:03d}.png")
    run = subprocess.run(
        [
            *(sys.executable, "-m", "tests.activations.kill_driver"),
            *map(str, (model_path, images, tmp_path, N_KILLS)),
        ],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[2],
        timeout=300,
    )
    assert run.returncode == 0, run.stderr
    found = json.loads(run.stdout)
    trials = found["trials"]
    assert len(trials) == N_KILLS
    # The random moments fall on starting, extracting and finishing; most have to be worth killing.
    assert sum(trial["in_the_middle"] for trial in trials) >= N_KILLS // 3
    for trial in trials:
        assert trial["same"], trial
        assert trial["left"] == [".lock", "1.parquet", "3.parquet"]
        # What is on disk is not computed again. A batch that proves a new size has one image more.
        proofs = 5
        assert trial["computed"][1] <= N_IMAGES - trial["on_disk"] + proofs, trial
    # Ranges are short beside a run: some runs had left several, and others none.
    assert len({trial["on_disk"] for trial in trials}) > 5
