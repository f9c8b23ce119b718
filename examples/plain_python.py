"""Rates of one image with ONNX Runtime alone: python plain_python.py predictor.onnx image.png"""

import json
import sys

import numpy as np
import onnxruntime
from PIL import Image

session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
pixels = np.asarray(Image.open(sys.argv[2]).convert("RGB"))
(rates,) = session.run(["rates"], {"images": pixels[None]})
sites = json.loads(session.get_modelmeta().custom_metadata_map["nrp_onnx.sites"])
print(json.dumps(dict(zip(sites, rates[0].tolist(), strict=True))))
