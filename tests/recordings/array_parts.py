"""The parts of an import: images, a table of stimuli, a table of sites, an array."""

from pathlib import Path
from typing import Any

from nrp_onnx.recordings import Recordings, import_arrays

AXES = ("site", "stimulus", "repetition")
N_SITES, N_STIMULI, N_REPETITIONS = 3, 5, 4
#: Neither the order of the file names nor that of the ids.
ROWS = [
    ("s3", "owl.png"),
    ("s1", "cat.png"),
    ("s5", "eel.png"),
    ("s2", "dog.png"),
    ("s4", "ant.png"),
]


def run(
    folder: Path, responses: str = "rates.npy", images: str = "pictures", **chosen: Any
) -> Recordings:
    options: dict[str, Any] = {
        "axes": AXES,
        "region": "V4",
        "stimuli": folder / "stimuli.csv",
    } | chosen
    return import_arrays(folder / images, folder / responses, folder / "out", **options)
