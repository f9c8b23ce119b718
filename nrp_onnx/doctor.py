"""Looks at what this machine has for nrp_onnx, and at what stands in the way."""

import os
import platform
import shutil
from importlib.metadata import distributions
from pathlib import Path

import onnxruntime as ort

from nrp_onnx.activations.session import CLASH, load_libraries, n_gpus, wheels_clash, why_not
from nrp_onnx.activations.space import memory, size
from nrp_onnx.decoding_pool import n_cores
from nrp_onnx.recordings.registry import cache_folder

#: Distributions whose versions matter; those that begin with nvidia- or onnxruntime are added.
_PACKAGES = frozenset(
    [
        *("nrp-onnx", "numpy", "onnx", "onnx-ir", "torch", "pyarrow", "pillow", "scikit-learn"),
        *("tensorrt", "keras", "tensorflow-cpu", "transformers", "timm", "torchvision", "jax"),
    ]
)


def examine() -> dict[str, dict[str, str]]:
    """Versions, devices, machine and disk; each a mapping of names to what was found, as text."""
    versions = {d.name.lower().replace("_", "-"): d.version for d in distributions()}
    kept = {
        name: versions[name]
        for name in sorted(versions)
        if name in _PACKAGES or name.startswith(("nvidia-", "onnxruntime"))
    }
    cache, here = cache_folder(), memory()
    return {
        "versions": {"python": platform.python_version(), **kept},
        "devices": _devices(),
        "machine": {
            "system": f"{platform.system()} {platform.release()}, {platform.machine()}",
            "cores": f"{n_cores()} of {os.cpu_count()}",
            "memory": f"{size(here.available)} free of {size(here.total)}" if here else "unknown",
        },
        "disk": {
            "this folder": f"{size(shutil.disk_usage(Path.cwd()).free)} free",
            f"cache {cache}": f"{size(shutil.disk_usage(_nearest(cache)).free)} free",
        },
    }


def _devices() -> dict[str, str]:
    said = load_libraries()
    found = {
        "providers": ", ".join(ort.get_available_providers()),
        "GPUs": str(n_gpus()),
        "cpu": "works",
    }
    for device in ("cuda", "tensorrt"):
        reason = why_not(device)
        found[device] = "nothing stands in the way" if reason is None else str(reason)
    if wheels_clash():
        found["wheels"] = CLASH
    if said:
        found["libraries"] = " ".join(said.split())
    return found


def _nearest(path: Path) -> Path:
    """The folder, or the nearest one above it that exists."""
    return next(folder for folder in (path, *path.parents) if folder.is_dir())
