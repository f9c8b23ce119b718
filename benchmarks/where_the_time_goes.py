"""Where a score spends its time, beside what the bare backbone needs for the same images.

Usage: python benchmarks/where_the_time_goes.py MODEL RECORDINGS [--preprocess tf] [--search paper]

All figures come from one run on one machine; the ratios, not the seconds, are what to compare.
"""

import argparse
import platform
import tempfile
import time
from pathlib import Path

import numpy as np
import onnxruntime as ort

import nrp_onnx as nrp
from nrp_onnx.backbone.model import load_backbone
from nrp_onnx.notes import Notes
from nrp_onnx.recordings import open_recordings

_BATCH = 16


def seconds_of_bare_network(model: Path, n_images: int) -> float:
    """Seconds that ONNX Runtime takes for the model as it is, on images already in memory."""
    backbone = load_backbone(model)
    given, batch = backbone.input, backbone.input.batch or _BATCH
    height, width = given.height or 224, given.width or 224
    shape = (batch, 3, height, width) if given.layout == "NCHW" else (batch, height, width, 3)
    images = np.random.default_rng(0).standard_normal(shape).astype(given.dtype)
    session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
    output = session.get_outputs()[0].name
    session.run([output], {given.name: images})
    start = time.perf_counter()
    for _ in range(0, n_images, batch):
        session.run([output], {given.name: images})
    return time.perf_counter() - start


def main() -> None:
    """Measure and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("recordings")
    parser.add_argument("--preprocess")
    parser.add_argument("--search", default="paper")
    given = parser.parse_args()
    recordings = open_recordings(given.recordings, Notes())
    bare = seconds_of_bare_network(given.model, recordings.n_stimuli)
    with tempfile.TemporaryDirectory() as folder:
        run = nrp.score(
            given.model,
            recordings,
            out=Path(folder) / "run",
            preprocess=given.preprocess,
            search=given.search,
            device="cpu",
        )
        timings = run.result.timings
    extraction = timings["extraction_s"]
    print(
        f"\n{given.model.name}, {recordings.n_stimuli} images, {recordings.n_sites} sites, ", end=""
    )
    print(f"--search {given.search}; {platform.machine()}, ONNX Runtime {ort.__version__}\n")
    print("| step | seconds | of extraction |\n|---|---|---|")
    print(f"| bare network | {bare:.1f} | {bare / extraction:.2f} |")
    for name, seconds in timings.items():
        print(f"| {name.removesuffix('_s')} | {seconds:.1f} | {seconds / extraction:.2f} |")


if __name__ == "__main__":
    main()
