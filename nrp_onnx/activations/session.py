"""ONNX Runtime sessions on the device that was asked for, never quietly on another."""

from pathlib import Path
from typing import Literal

import onnxruntime as ort

from nrp_onnx.activations.runtime_wheels import CLASH, wheels_clash
from nrp_onnx.backbone.external_data import session_options
from nrp_onnx.errors import DeviceError, ModelError, OptionError
from nrp_onnx.notes import Notes

Device = Literal["auto", "cpu", "cuda"]
_CUDA, _CPU = "CUDAExecutionProvider", "CPUExecutionProvider"


def open_session(
    model: bytes, device: str, notes: Notes, where: object, data_folder: Path | None = None
) -> ort.InferenceSession:
    """A session on a device.

    Args:
        model: a serialised ONNX model.
        data_folder: where the external data that it refers to lie, which have been checked.
        device: ``cpu``; ``cuda``, an error where it does not work; ``auto``, CUDA where a GPU is
            present and the CPU elsewhere, which is said.

    Raises:
        DeviceError: if CUDA is asked for and does not work; with the reason.
        ModelError: if ONNX Runtime cannot run the model.
    """
    if device not in ("auto", "cpu", "cuda"):
        raise OptionError(
            "no such device", where="--device", expected="auto, cpu or cuda", found=repr(device)
        )
    if device == "auto":
        device = "cuda" if _gpu_is_present() else "cpu"
        notes.say(f"--device auto: running on {device}")
    if device == "cuda":
        return _cuda_session(model, where, data_folder)
    try:
        return ort.InferenceSession(model, session_options(data_folder), providers=[_CPU])
    except Exception as error:  # ONNX Runtime has no public exception family
        raise ModelError(
            "ONNX Runtime cannot load the model", where=where, found=str(error).splitlines()[0]
        ) from None


def _gpu_is_present() -> bool:
    if _CUDA not in ort.get_available_providers():
        return False
    return any(
        device.device.type == ort.OrtHardwareDeviceType.GPU for device in ort.get_ep_devices()
    )


def _cuda_session(model: bytes, where: object, data_folder: Path | None) -> ort.InferenceSession:
    if _CUDA not in ort.get_available_providers():
        raise DeviceError(
            "this ONNX Runtime has no CUDA provider",
            where="--device cuda",
            expected="the package onnxruntime-gpu",
            found=f"onnxruntime {ort.__version__} with {', '.join(ort.get_available_providers())}",
            fix=f"{CLASH}, or use --device cpu."
            if wheels_clash()
            else "Uninstall onnxruntime and reinstall onnxruntime-gpu, or use --device cpu.",
        )
    ort.preload_dlls()  # finds the CUDA libraries of PyTorch and of NVIDIA's pip packages
    options = session_options(data_folder)
    options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    try:
        # TF32 would round products to 10 bits: the score must not depend on the device.
        return ort.InferenceSession(model, options, providers=[(_CUDA, {"use_tf32": "0"})])
    except Exception as error:
        raise DeviceError(
            "CUDA does not work",
            where=f"--device cuda, {where}",
            found=" ".join(str(error).split())[:300],
            fix="Check the driver, CUDA and cuDNN, or use --device cpu.",
        ) from None
