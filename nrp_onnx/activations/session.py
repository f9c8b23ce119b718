"""ONNX Runtime sessions on the device that was asked for, never quietly on another."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnxruntime as ort

from nrp_onnx.activations.gpu import CUDA, TENSORRT, gpu_is_present, load_libraries, why_not
from nrp_onnx.backbone import external_data
from nrp_onnx.errors import DeviceError, ModelError, OptionError
from nrp_onnx.notes import Notes

Device = Literal["auto", "cpu", "cuda", "tensorrt"]
DEVICES = ("auto", "cpu", "cuda", "tensorrt")
_CPU = "CPUExecutionProvider"

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
    if device not in DEVICES:
        raise OptionError(
            "no such device",
            where="--device",
            expected=f"{', '.join(DEVICES[:-1])} or {DEVICES[-1]}",
            found=repr(device),
        )
    if device == "auto":
        device = "cuda" if gpu_is_present() else "cpu"
        notes.say(f"--device auto: running on {device}")
    if device != "cpu":
        return _gpu_session(model, device, notes, where, data_folder)
    try:
        return ort.InferenceSession(model, _options(data_folder, threads), providers=[_CPU])
    except Exception as error:  # ONNX Runtime has no public exception family
        raise ModelError(
            "ONNX Runtime cannot load the model", where=where, found=str(error).splitlines()[0]
        ) from None


def _options(data_folder: Path | None, threads: int = 0) -> ort.SessionOptions:
    options = external_data.session_options(data_folder)
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
