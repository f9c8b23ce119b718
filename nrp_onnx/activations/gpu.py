"""What stands between this machine and a working GPU, found before a session is tried."""

import contextlib
import ctypes
import io
import sys
from pathlib import Path

import onnxruntime as ort

from nrp_onnx.activations.runtime_wheels import CLASH, wheels_clash
from nrp_onnx.errors import DeviceError

CUDA, TENSORRT = "CUDAExecutionProvider", "TensorrtExecutionProvider"
_LIBRARIES = {"cuda": "onnxruntime_providers_cuda", "tensorrt": "onnxruntime_providers_tensorrt"}
_PROVIDERS = {"cuda": CUDA, "tensorrt": TENSORRT}


def load_libraries() -> str:
    """Load the CUDA and cuDNN libraries of NVIDIA's pip packages, where they are installed.

    Returns:
        What ONNX Runtime says about those that are missing. It prints this to stdout, which is kept
        for results.
    """
    with contextlib.redirect_stdout(io.StringIO()) as said:
        ort.preload_dlls()
    return said.getvalue().strip()


def gpu_is_present() -> bool:
    """Whether ``--device auto`` means the GPU."""
    return CUDA in ort.get_available_providers() and n_gpus() > 0


def n_gpus() -> int:
    """How many GPUs the NVIDIA driver lends this process; 0 without a driver."""
    try:
        driver = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return 0
    count = ctypes.c_int(0)
    if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return 0
    return count.value


def why_not(device: str) -> DeviceError | None:
    """Why ``cuda`` or ``tensorrt`` cannot work here; None if nothing stands in the way."""
    provider = _PROVIDERS[device]
    if provider not in ort.get_available_providers():
        return DeviceError(
            f"this ONNX Runtime has no {provider}",
            where=f"--device {device}",
            expected="the package onnxruntime-gpu",
            found=f"onnxruntime {ort.__version__} with {', '.join(ort.get_available_providers())}",
            fix=f"{CLASH}, or use --device cpu."
            if wheels_clash()
            else "Uninstall onnxruntime and reinstall onnxruntime-gpu, or use --device cpu.",
        )
    if n_gpus() == 0:
        return DeviceError(
            "there is no GPU that the NVIDIA driver lends to this process",
            where=f"--device {device}",
            expected="a driver and at least one device, as nvidia-smi lists them",
            found="none",
            fix="Check nvidia-smi and CUDA_VISIBLE_DEVICES, or use --device cpu.",
        )
    missing = missing_library(device)
    if missing is not None:
        return DeviceError(
            "a library of CUDA, cuDNN or TensorRT is missing",
            where=f"--device {device}",
            expected=f"those of CUDA {ort.cuda_version}, for which this ONNX Runtime is built",
            found=missing,
            fix="Install TensorRT's own package, or use --device cuda."
            if device == "tensorrt"
            else "Run pip install 'nrp-onnx[cuda]', or use --device cpu.",
        )
    return None


def missing_library(device: str) -> str | None:
    """What the loader says of the provider's library; None if it loads with all it needs."""
    folder = Path(ort.__file__).parent / "capi"
    prefix, suffix = ("", ".dll") if sys.platform == "win32" else ("lib", ".so")
    try:
        for name in ("onnxruntime_providers_shared", _LIBRARIES[device]):
            ctypes.CDLL(str(folder / f"{prefix}{name}{suffix}"))
    except OSError as error:
        return str(error)
    return None
