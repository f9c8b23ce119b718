"""Rates of pictures by engines other than ONNX Runtime's Python package, through the examples."""

from __future__ import annotations

import functools
import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from PIL import Image

from tests.browser import Page

EXAMPLES = Path(__file__).parents[2] / "examples"
_SECONDS = 120


def by_onnxruntime(model: Path, images: Sequence[Path]) -> np.ndarray:
    """What the others are compared with: float32 (n_images, n_sites)."""
    session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
    rows = [
        session.run(["rates"], {"images": np.asarray(Image.open(image).convert("RGB"))[None]})[0]
        for image in images
    ]
    return np.concatenate(rows)


def by_node(model: Path, images: Sequence[Path]) -> np.ndarray:
    """onnxruntime-node, in Node, with decoders written in JavaScript."""
    printed = run_example(find_node(), "node/predict.mjs", model, *images)
    return _rates(json.loads(printed), images)


def by_openvino(model: Path, images: Sequence[Path]) -> np.ndarray:
    """OpenVINO on the CPU in 32 bits."""
    printed = run_example(sys.executable, "openvino_predict.py", model, *images)
    return _rates(json.loads(printed), images)


def by_web(model: Path, images: Sequence[Path], browser: Page) -> np.ndarray:
    """onnxruntime-web, in the open browser, which decodes the pictures too."""
    folders = [model.parent, *dict.fromkeys(image.parent for image in images)]
    with served(*folders) as address:
        browser.open(address, 1000)
        browser.wait("document.body.dataset.state === 'ready'")
        names = json.dumps([image.name for image in images])
        rows = browser.value(f"""(async () => {{
            const {{ openPredictor, pixelsOf }} = await import("./predictor.js");
            const predictor = await openPredictor("./");
            const rows = [];
            for (const name of {names}) {{
                const pixels = await pixelsOf(await (await fetch(name)).blob());
                rows.push(Array.from(await predictor.predict(pixels)));
            }}
            return rows;
        }})()""")
    return np.array(rows)


def run_example(program: str, example: str, *arguments: object, cwd: Path | None = None) -> str:
    """What a program prints on an example, which ends without an error."""
    run = subprocess.run(
        [program, str(EXAMPLES / example), *map(str, arguments)],
        capture_output=True, text=True, cwd=cwd, check=False, timeout=_SECONDS,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    return run.stdout


def find_node() -> str:
    found = shutil.which("node")
    assert found, "Node is not on this machine; the examples need version 20 or later"
    return found


@contextmanager
def served(*folders: Path) -> Iterator[str]:
    """The address of the example's page, with the files of some folders beside it."""
    handler = functools.partial(_Handler, folders=(*folders, EXAMPLES / "web"))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/"
        finally:
            server.shutdown()
            thread.join()


class _Handler(SimpleHTTPRequestHandler):
    """Looks in one folder after the other."""

    def __init__(self, *arguments: Any, folders: Sequence[Path]) -> None:
        self._folders = folders
        super().__init__(*arguments)

    def translate_path(self, path: str) -> str:
        found = ""
        for folder in self._folders:
            self.directory = str(folder)
            found = super().translate_path(path)
            if Path(found).is_file():
                break
        return found

    def log_message(self, format: str, *arguments: object) -> None:
        """Nothing."""


def _rates(printed: dict[str, Any], images: Sequence[Path]) -> np.ndarray:
    assert [row["image"] for row in printed["images"]] == [str(image) for image in images]
    return np.array([list(row["rates"].values()) for row in printed["images"]])
