"""Rates of images with OpenVINO: python openvino_predict.py predictor.onnx image.png [image.png ...]

Where a processor has instructions for 16-bit floats, OpenVINO uses them unless it is told not to. The
hint keeps it at 32 bits, in which the predictor was scored.
"""

import json
import sys
from pathlib import Path

import numpy as np
import openvino
from openvino import properties
from PIL import Image


def main(model: Path, images: list[str]) -> None:
    facts = json.loads(model.with_suffix(".json").read_text(encoding="utf-8"))
    hints = {properties.hint.inference_precision: openvino.Type.f32}
    compiled = openvino.Core().compile_model(model, "CPU", hints)
    found = []
    for image in images:
        pixels = np.asarray(Image.open(image).convert("RGB"))
        rates = compiled(pixels[None])["rates"][0]
        by_site = dict(zip(facts["sites"], rates.tolist(), strict=True))
        found.append({"image": image, "rates": by_site})
    print(json.dumps({"units": facts["units"], "images": found}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
