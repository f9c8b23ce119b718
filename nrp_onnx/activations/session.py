"""ONNX Runtime sessions on the device that was asked for, never quietly on another."""

import contextlib
import ctypes
import io
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnxruntime as ort

from nrp_onnx.backbone import weight_files
from nrp_onnx.errors import DeviceError, ModelError, OptionError
from nrp_onnx.notes import Notes

#: What to say where `wheels_clash`.
CLASH = (
    "onnxruntime and onnxruntime-gpu are both installed here and overwrite each other, so that CUDA may "
    "not be found: convert flax models in an environment of their own, and for CUDA run pip uninstall "
    "-y onnxruntime onnxruntime-gpu, then pip install onnxruntime-gpu"
)


def wheels_clash(version_of: Callable[[str], str] = version) -> bool:
    """Whether both wheels are installed in this environment.

    Args:
        version_of: gives the version of an installed distribution, as `importlib.metadata.version`.
    """
    try:
        return bool(version_of("onnxruntime") and version_of("onnxruntime-gpu"))
    except PackageNotFoundError:
        return False


CUDA, TENSORRT = "CUDAExecutionProvider", "TensorrtExecutionProvider"
_LIBRARIES = {"cuda": "onnxruntime_providers_cuda", "tensorrt": "onnxruntime_providers_tensorrt"}
#: ONNX Runtime's provider of each device.
PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": CUDA, "tensorrt": TENSORRT}


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
    provider = PROVIDERS[device]
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


Device = Literal["auto", "cpu", "cuda", "tensorrt"]
DEVICES = ("auto", "cpu", "cuda", "tensorrt")
_CPU = PROVIDERS["cpu"]

# TF32 would round products to 10 bits: a score must not depend on the device. Algorithms that are
# found by timing them differ from run to run, those of cuDNN's heuristics do not.
_CUDA_OPTIONS = {"use_tf32": "0", "cudnn_conv_algo_search": "HEURISTIC"}
_RECORD_PLACES = "session.record_ep_graph_assignment_info"
_SHAPE_OPS = frozenset(
    [
        *("Add", "Cast", "Concat", "ConstantOfShape", "Div", "Expand", "Gather", "Identity", "Mul"),
        *(
            "Range",
            "ReduceMin",
            "ReduceProd",
            "Reshape",
            "Shape",
            "Size",
            "Slice",
            "Squeeze",
            "Sub",
        ),
        "Unsqueeze",
    ]
)


def open_session(
    model: bytes,
    device: str,
    notes: Notes,
    where: object,
    data_folder: Path | None = None,
    threads: int = 0,
) -> ort.InferenceSession:
    """A session on a device.

    Args:
        model: a serialised ONNX model.
        data_folder: where the external data that it refers to lie, which have been checked.
        device: ``cpu``; ``cuda`` or ``tensorrt``, an error where they do not work; ``auto``, CUDA
            where a GPU is present and the CPU elsewhere, which is said.
        threads: of the CPU that one run uses; 0: those that ONNX Runtime chooses.

    Raises:
        DeviceError: if a GPU is asked for and does not work; with the reason.
        ModelError: if ONNX Runtime cannot run the model.
    """
    device = chosen_device(device, notes)
    if device != "cpu":
        return _gpu_session(model, device, notes, where, data_folder)
    try:
        return ort.InferenceSession(model, _options(data_folder, threads), providers=[_CPU])
    except Exception as error:  # ONNX Runtime has no public exception family
        raise ModelError(
            "ONNX Runtime cannot load the model", where=where, found=str(error).splitlines()[0]
        ) from None


def chosen_device(device: str, notes: Notes, has_gpu: bool | None = None) -> str:
    """The device that ``auto`` means, which is said; any other as it is.

    Args:
        has_gpu: whether there is one; None: whether one is present here.

    Raises:
        OptionError: if there is no such device.
    """
    if device not in DEVICES:
        raise OptionError(
            "no such device",
            where="--device",
            expected=f"{', '.join(DEVICES[:-1])} or {DEVICES[-1]}",
            found=repr(device),
        )
    if device == "auto":
        device = "cuda" if (gpu_is_present() if has_gpu is None else has_gpu) else "cpu"
        notes.say(f"--device auto: running on {device}")
    return device


def _options(data_folder: Path | None, threads: int = 0) -> ort.SessionOptions:
    options = weight_files.session_options(data_folder)
    options.intra_op_num_threads = threads
    # Threads that wait for work would spin, on the cores that decoding needs.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options


def _gpu_session(
    model: bytes, device: str, notes: Notes, where: object, data_folder: Path | None
) -> ort.InferenceSession:
    load_libraries()
    reason = why_not(device)
    if reason is not None:
        raise reason
    options = _options(data_folder)
    options.use_deterministic_compute = True
    options.add_session_config_entry(_RECORD_PLACES, "1")
    providers: list[tuple[str, dict[str, Any]]] = [(CUDA, _CUDA_OPTIONS)]
    if device == "tensorrt":
        providers.insert(0, (TENSORRT, {"trt_fp16_enable": "0", "trt_bf16_enable": "0"}))
    try:
        session = ort.InferenceSession(model, options, providers=providers)
        found = session.get_providers()[0]
    except Exception as error:
        found = " ".join(str(error).split())[:300]
    if found != providers[0][0]:  # a provider that does not start leaves all to the CPU
        raise DeviceError(
            "the model does not run there",
            where=f"--device {device}, {where}",
            expected=providers[0][0],
            found=found,
            fix="Look at nrp-onnx doctor, or use --device cpu.",
        )
    session.disable_fallback()  # an error while it runs is an error, and no reason to use the CPU
    notes.say(f"--device {device}: products are in full float32, TF32 is off")
    on_cpu = _left_to_cpu(session)
    if on_cpu:
        notes.say(
            f"--device {device}: the CPU runs {', '.join(on_cpu)}, which have no kernel there"
        )
    return session


def _left_to_cpu(session: ort.InferenceSession) -> list[str]:
    """Operators that the GPU does not run, less those that only compute shapes.

    ONNX Runtime places these on the CPU by design, so that its option against all of the CPU
    (``session.disable_cpu_ep_fallback``) would refuse every graph that resizes images.
    """
    if not hasattr(session, "get_provider_graph_assignment_info"):  # ONNX Runtime before 1.24
        return []
    parts = [p for p in session.get_provider_graph_assignment_info() if p.ep_name == _CPU]
    return sorted({node.op_type for part in parts for node in part.get_nodes()} - _SHAPE_OPS)


class BoundSession:
    """A session whose inputs and outputs stay on its device; only what it returns leaves it.

    Args:
        outputs: names of the outputs to return.
    """

    def __init__(self, session: ort.InferenceSession, image_input: str, outputs: Sequence[str]):
        self._session, self._input, self._outputs = session, image_input, outputs
        on_gpu = session.get_providers()[0] in (CUDA, TENSORRT)
        self._device = "cuda" if on_gpu else "cpu"
        self._images: ort.OrtValue | None = None

    def run(self, images: np.ndarray) -> list[np.ndarray]:
        """Uint8 images (n, H, W, 3) to the outputs, as arrays in this process."""
        binding = self._session.io_binding()
        if self._device == "cpu":
            binding.bind_cpu_input(self._input, images)
        else:
            binding.bind_ortvalue_input(self._input, self._on_device(images))
        for name in self._outputs:
            binding.bind_output(name, self._device)
        self._session.run_with_iobinding(binding)
        outputs: list[np.ndarray] = binding.copy_outputs_to_cpu()
        return outputs

    def _on_device(self, images: np.ndarray) -> ort.OrtValue:
        """The images in the device's memory, in the place of the last ones of the same shape."""
        held = self._images
        if held is not None and held.shape() == list(images.shape):
            held.update_inplace(images)
        else:
            held = self._images = ort.OrtValue.ortvalue_from_numpy(images, self._device, 0)
        return held
