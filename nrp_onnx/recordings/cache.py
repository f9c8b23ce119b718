"""Where simulated and public recordings are kept."""

import os
from pathlib import Path

import platformdirs

CACHE_VARIABLE = "NRP_ONNX_CACHE"


def cache_folder() -> Path:
    """The folder of what is kept between runs; the variable NRP_ONNX_CACHE moves it."""
    chosen = os.environ.get(CACHE_VARIABLE)
    return Path(chosen).expanduser() if chosen else platformdirs.user_cache_path("nrp_onnx")
