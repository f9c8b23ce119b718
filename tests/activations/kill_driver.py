"""Kills an extraction at random moments; run as a process of its own, which forks.

A fork costs milliseconds, a new Python with its imports seconds. Prints one JSON line.
"""

import hashlib
import json
import os
import random
import shutil
import signal
import sys
import time
from pathlib import Path

import numpy as np

from nrp_onnx.activations import extract as extraction
from nrp_onnx.activations import session
from nrp_onnx.activations.images import ImageFolder
from nrp_onnx.api import extract_with
from nrp_onnx.scoring.options import ExtractOptions

SECONDS_AN_IMAGE = 0.001
N_IMAGES = 320
#: A few of them in a run.
SECONDS_A_RANGE = 0.05


def main(model: Path, images: Path, desk: Path, n_kills: int) -> None:
    given = ImageFolder(images)
    print("fingerprint", given.stimuli_fingerprint, file=sys.stderr)
    begun = time.perf_counter()
    wait(start(model, given, desk / "whole", desk / "whole.log"))
    seconds = time.perf_counter() - begun
    expected = digests(desk / "whole")
    chance = random.Random(0)
    trials = []
    for trial in range(n_kills):
        folder, logs = desk / f"out{trial}", [desk / f"{trial}{run}.log" for run in "ab"]
        process = start(model, given, folder, logs[0])
        time.sleep(chance.uniform(0, seconds))
        os.kill(process, signal.SIGKILL)
        was_killed = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == -signal.SIGKILL
        begun = (folder / ".part").is_dir()
        on_disk = images_on_disk(folder)
        wait(start(model, given, folder, logs[1]))
        computed = [sum(batches(log)) for log in logs]
        trials.append(
            {
                "killed": was_killed,
                "in_the_middle": begun and was_killed,
                "same": digests(folder) == expected,
                "left": sorted(path.name for path in folder.iterdir()),
                "on_disk": on_disk,
                "computed": computed,
            }
        )
        shutil.rmtree(folder)
    print(
        json.dumps(
            {"seconds": seconds, "whole": sum(batches(desk / "whole.log")), "trials": trials}
        )
    )


def start(model: Path, images: ImageFolder, out: Path, log: Path) -> int:
    """Extract in a forked process that logs the images of each finished batch."""
    process = os.fork()
    if process:
        return process
    run = session.BoundSession.run

    def slow_run(self: session.BoundSession, pixels: np.ndarray) -> list[np.ndarray]:
        outputs = run(self, pixels)
        time.sleep(SECONDS_AN_IMAGE * len(pixels))
        if len(pixels) > 1:  # alone is only the image that proves the batch size free
            with log.open("a") as file:
                file.write(f"{len(pixels)}\n")
        return outputs

    setattr(session.BoundSession, "run", slow_run)  # noqa: B010
    setattr(extraction, "RANGE_SECONDS", SECONDS_A_RANGE)  # noqa: B010
    code = 1
    try:
        extract_with(
            model,
            images,
            out,
            ExtractOptions(layers="1,3", reduce="none", preprocess="tf", device="cpu"),
        )
        code = 0
    finally:
        os._exit(code)
    return 0


def wait(process: int) -> None:
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 0


def images_on_disk(folder: Path) -> int:
    """In the ranges that the layers without a file share."""
    found = []
    for name in ("1", "3"):
        if not (folder / f"{name}.parquet").exists():
            found.append({path.stem for path in (folder / ".part" / name).glob("*/*.arrow")})
    if not found:
        return N_IMAGES
    ranges = [map(int, stem.split("-")) for stem in set.intersection(*found)]
    return sum(end - start for start, end in ranges)


def batches(log: Path) -> list[int]:
    return [int(line) for line in log.read_text().split()] if log.exists() else []


def digests(folder: Path) -> dict[str, str]:
    files = sorted(folder.glob("*.parquet"))
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4]))
