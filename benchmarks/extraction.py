"""Extraction beside what limits it: ONNX Runtime on the bare backbone, and PyTorch with hooks.

Usage: python benchmarks/extraction.py [MODEL.onnx ...] [--images 320] [--rounds 3] [--scale]

Sides of a model, which take turns in every round; the best round of each counts:

- limit: ONNX Runtime on the backbone as it came, its scores its only output, float images in memory,
  with its own defaults; and once more with threads that do not spin while they wait, as ours do not;
- files: PNG files of 256 x 256 pixels to Parquet, through decoding, preprocessing, five layers with
  avgpool:2, as `nrp-onnx extract` does it;
- memory: the same from uint8 images of the network's own size that are in memory;
- hooks: the network in PyTorch with forward hooks, images decoded and resized by Pillow, one .npy a
  layer; of the ResNet50 that is made here, with random weights, where no MODEL is named.

What is done once, before the first image, is a row of its own. ``--scale`` adds time and peak memory of
whole runs over 320 and 3,200 images, each in a process of its own. Ratios are of images a second to the
limit; CPU-ms are of all threads.
"""

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from PIL import Image

from nrp_onnx import decoding_pool as decoding
from nrp_onnx.activations.compute import Computation, Request
from nrp_onnx.activations.images import ImageFolder, StimulusRange
from nrp_onnx.activations.layer_file import layer_path
from nrp_onnx.activations.layer_writer import RANGE_SECONDS, LayerRanges, join_ranges
from nrp_onnx.api import extract_with
from nrp_onnx.backbone.model import Backbone, load_backbone
from nrp_onnx.notes import Notes
from nrp_onnx.recordings.simulation.stimuli import render
from nrp_onnx.scoring.choices import choose_features, choose_preprocessing
from nrp_onnx.scoring.options import ExtractOptions

#: Of the other sides.
_BATCH = 16
_REDUCE = "avgpool:2"


@dataclass
class Best:
    """The best round of a side: seconds, and CPU seconds, of all its images."""

    seconds: float = float("inf")
    cpu_seconds: float = float("inf")

    def measure(self, run: Callable[[], None]) -> None:
        cpu, wall = time.process_time(), time.perf_counter()
        run()
        self.seconds = min(self.seconds, time.perf_counter() - wall)
        self.cpu_seconds = min(self.cpu_seconds, time.process_time() - cpu)


def bare_session(backbone: Backbone, spinning: bool = True) -> Callable[[int], None]:
    """Runs the backbone, cut down to its scores, on the same float images again and again."""
    options = ort.SessionOptions()
    options.add_session_config_entry("session.intra_op.allow_spinning", str(int(spinning)))
    proto = onnx.ModelProto()
    proto.CopyFrom(backbone.proto)
    del proto.graph.output[1:]
    given = backbone.input
    height, width = given.height or 224, given.width or 224
    shape = (_BATCH, 3, height, width) if given.layout == "NCHW" else (_BATCH, height, width, 3)
    pixels = np.random.default_rng(0).standard_normal(shape).astype(given.dtype)
    session = ort.InferenceSession(
        proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )

    def run(n_images: int) -> None:
        for _ in range(0, n_images, _BATCH):
            session.run(None, {given.name: pixels})

    run(_BATCH)
    return run


class Ours:
    """The extraction of one model with its session open, over some images."""

    def __init__(self, backbone: Backbone, desk: Path) -> None:
        start = time.perf_counter()
        notes = Notes()
        preprocessing = choose_preprocessing(backbone, "imagenet", notes)
        self.features = choose_features(backbone, "auto", _REDUCE, 1, notes)
        request = Request(backbone, preprocessing, "cpu", notes, False, False)
        self._computation = Computation(request, self.features)
        self._layers = [
            LayerRanges(
                layer_path(desk / "ours", feature.layer.name), feature.n_features, {"layer": ""}
            )
            for feature in self.features
        ]
        self.seconds_to_start = time.perf_counter() - start

    def __call__(self, stimuli: ImageFolder) -> None:
        all_images = StimulusRange.of(stimuli, (0, len(stimuli.stimulus_ids)))
        ranges = self._computation.run(self._layers, all_images, RANGE_SECONDS, lambda _: None)
        for layer in self._layers:
            join_ranges(ranges, layer)


def hooks_side(layers: list[str], desk: Path) -> Callable[[ImageFolder], None]:
    """ResNet50 in PyTorch, as peers extract from it."""
    import torch
    import torch.nn.functional as F

    network, kept = resnet50(), {}
    for name in layers:

        def keep(_: Any, __: Any, output: Any, name: str = name) -> None:
            kept[name] = F.adaptive_avg_pool2d(output, 2) if output.ndim == 4 else output

        network.get_submodule(name).register_forward_hook(keep)
    mean, std = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])

    def run(stimuli: ImageFolder) -> None:
        rows: dict[str, list[np.ndarray]] = {name: [] for name in layers}
        paths = stimuli.stimulus_paths
        for start in range(0, len(paths), _BATCH):
            pixels = [
                Image.open(path).convert("RGB").resize((224, 224), Image.Resampling.BILINEAR)
                for path in paths[start : start + _BATCH]
            ]
            x = (np.stack([np.asarray(image, np.float32) for image in pixels]) / 255 - mean) / std
            with torch.inference_mode():
                network(torch.from_numpy(x.transpose(0, 3, 1, 2).copy()))
            for name in layers:
                rows[name].append(kept[name].flatten(1).numpy())
        for name in layers:
            np.save(desk / f"{name}.npy", np.concatenate(rows[name]))

    return run


def resnet50() -> Any:
    import torch
    from transformers import ResNetConfig, ResNetForImageClassification

    torch.manual_seed(0)
    return ResNetForImageClassification(ResNetConfig()).eval()


def make_resnet50(path: Path) -> None:
    """Convert it, with random weights."""
    import torch

    from nrp_converters.torch.modules import convert
    from nrp_onnx.backbone.preprocessing import PRESETS

    convert(resnet50(), torch.zeros(1, 3, 224, 224), preprocessing=PRESETS["imagenet"]).save(path)


def write_images(folder: Path, n_images: int, pixels: int) -> ImageFolder:
    folder.mkdir()
    for place in range(n_images):
        image = render(0, place).convert("RGB")
        image.resize((pixels, pixels), Image.Resampling.BICUBIC).save(folder / f"{place:05d}.png")
    return ImageFolder(folder)


def compare(model: Path, given: argparse.Namespace, desk: Path, with_hooks: bool) -> None:
    """Print the table of one model."""
    backbone = load_backbone(model)
    files = ImageFolder(desk / "files")
    own = ImageFolder(desk / "own")
    in_memory = {path: decoding.decode(path, path) for path in own.stimulus_paths}
    from_file = decoding.decode
    bare, ours = bare_session(backbone), Ours(backbone, desk)
    not_spinning = bare_session(backbone, spinning=False)
    sides: dict[str, Callable[[], None]] = {
        "limit: ONNX Runtime, bare": lambda: bare(given.images),
        "limit, threads not spinning": lambda: not_spinning(given.images),
        "files to Parquet": lambda: ours(files),
        "memory to Parquet": lambda: ours(own),
    }
    if with_hooks:
        hooks = hooks_side([feature.layer.name for feature in ours.features], desk)
        sides["PyTorch, hooks, .npy"] = lambda: hooks(files)
    best = {name: Best() for name in sides}
    for _ in range(given.rounds):
        for name, run in sides.items():
            if name.startswith("memory"):
                decoding.decode = lambda path, _: in_memory[path]  # type: ignore[assignment]
            best[name].measure(run)
            decoding.decode = from_file
    limit = best["limit: ONNX Runtime, bare"]
    print(f"\n{model.name}: {', '.join(f.layer.name for f in ours.features)}\n")
    print("| side | of the limit | images/s | CPU-ms an image | CPU of the limit |")
    print("|---|---|---|---|---|")
    for name, found in best.items():
        print(
            f"| {name} | {limit.seconds / found.seconds:.3f} | {given.images / found.seconds:.1f} "
            f"| {1000 * found.cpu_seconds / given.images:.2f} "
            f"| {limit.cpu_seconds / found.cpu_seconds:.3f} |"
        )
    print(f"| (once: graph and session) | | {ours.seconds_to_start:.1f} s | | |", flush=True)


def scale(model: Path, desk: Path) -> None:
    """Print time and peak memory of whole runs over 320 and 3,200 images."""
    found = []
    for n_images in (320, 3200):
        run = [sys.executable, __file__, str(model), "--alone", str(n_images), "--desk", str(desk)]
        found.append(
            json.loads(subprocess.run(run, capture_output=True, text=True, check=True).stdout)
        )
    small, large = found
    print(f"\n{model.name}: whole runs, each a process\n")
    print("| images | seconds | peak MiB |\n|---|---|---|")
    for n_images, row in zip((320, 3200), found, strict=True):
        print(f"| {n_images} | {row['seconds']:.1f} | {row['peak'] / 1024:.0f} |")
    times, memory = large["seconds"] / small["seconds"], large["peak"] / small["peak"]
    print(f"| ratio | {times:.2f} | {memory:.3f} |", flush=True)


def alone(model: Path, n_images: int, desk: Path) -> None:
    """One whole run; the images are taken again and again until there are enough."""
    stimuli = ImageFolder(desk / "files")
    times = -(-n_images // len(stimuli.stimulus_ids))
    stimuli.stimulus_ids = tuple(f"{i}/{n}" for i in range(times) for n in stimuli.stimulus_ids)[
        :n_images
    ]
    stimuli.stimulus_paths = (stimuli.stimulus_paths * times)[:n_images]
    options = ExtractOptions(reduce=_REDUCE, preprocess="imagenet", device="cpu")
    with tempfile.TemporaryDirectory(dir=desk) as out:
        start = time.perf_counter()
        extract_with(model, stimuli, out, options)
        seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps({"seconds": seconds, "peak": peak}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", type=Path, nargs="*")
    parser.add_argument("--images", type=int, default=320)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--scale", action="store_true")
    parser.add_argument("--alone", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--desk", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.alone:
        alone(given.models[0], given.alone, given.desk)
        return
    with tempfile.TemporaryDirectory() as folder:
        desk = Path(folder)
        write_images(desk / "files", given.images, 256)
        write_images(desk / "own", given.images, 224)
        models = list(given.models)
        if not models:
            models = [desk / "resnet50.onnx"]
            make_resnet50(models[0])
        print(
            f"{given.images} images, best of {given.rounds} rounds; {os.cpu_count()} cores, "
            f"{platform.machine()}, Python {platform.python_version()}, ONNX Runtime {ort.__version__}"
        )
        for model in models:
            compare(model, given, desk, with_hooks=not given.models)
            if given.scale:
                scale(model, desk)


if __name__ == "__main__":
    main()
