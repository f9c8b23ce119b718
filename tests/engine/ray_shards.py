"""Extracts the same images in this process and in shards on Ray; prints JSON with what was the same.

Run as a program, for a model and a folder to work in.
"""

import contextlib
import json
import sys
from pathlib import Path

import numpy as np
import ray
from PIL import Image

from nrp_onnx.activations.layer_writer import join_ranges
from nrp_onnx.api import extract_with
from nrp_onnx.engine import RayEngine
from nrp_onnx.notes import Notes
from nrp_onnx.scoring.options import ExtractOptions


class Log(Notes):
    """Notes that keep what is logged, too."""

    def __init__(self) -> None:
        super().__init__()
        self.logged: list[str] = []

    def log(self, text: str) -> None:
        self.logged.append(text)


def main(model: str, folder: str) -> None:
    here = Path(folder)
    (here / "images").mkdir()
    rng = np.random.default_rng(0)
    for place in range(200):
        shape = (20, 24) if place % 3 == 0 else (20, 20, 3)
        pixels = rng.integers(0, 256, shape, dtype=np.uint8)
        Image.fromarray(pixels).save(here / "images" / f"{place:03d}.png")
    for engine in ("local", "ray"):
        options = ExtractOptions("1,3", "1=pca:5,*=none", "tf", "cpu", engine=engine)
        extract_with(model, here / "images", here / engine, options)
    names = ["1.parquet", "3.parquet", "components/1.parquet"]

    def same(of: str) -> list[str]:
        pairs = [(here / of / name, here / "local" / name) for name in names]
        return [
            n for n, (a, b) in zip(names, pairs, strict=True) if a.read_bytes() == b.read_bytes()
        ]

    # A run that ends before the join leaves its ranges; one of a layer is lost as well.
    done = [same("ray")]
    options = ExtractOptions("1,3", "none", "tf", "cpu", engine="ray")
    join = RayEngine.map

    def without_join(self: RayEngine, function, tasks, on_gpu=False):
        if getattr(function, "func", None) is join_ranges:
            raise KeyboardInterrupt
        return join(self, function, tasks, on_gpu)

    RayEngine.map = without_join  # type: ignore[method-assign]
    with contextlib.suppress(KeyboardInterrupt):
        extract_with(model, here / "images", here / "again", options)
    RayEngine.map = join  # type: ignore[method-assign]
    left = sorted((here / "again" / ".part" / "1").glob("*/*.arrow"))
    left[1].unlink()
    log = Log()
    extract_with(model, here / "images", here / "again", options, log)
    n_again = 200 - int(
        next(t for t in log.logged if "going on" in t).split(" left ")[1].split()[0]
    )
    extract_with(model, here / "images", here / "whole", ExtractOptions("1,3", "none", "tf", "cpu"))
    for name in names[:2]:
        whole = (here / "whole" / name).read_bytes()
        assert (here / "again" / name).read_bytes() == whole, name
    assert not (here / "again" / ".part").exists()
    print(json.dumps({"shards": len(left), "same": done[0], "computed_again": n_again // 64}))
    ray.shutdown()


if __name__ == "__main__":
    main(*sys.argv[1:])
