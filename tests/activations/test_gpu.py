"""Why a GPU does not work, said before anything runs; the command doctor."""

import ctypes
import json
from typing import Any

import onnxruntime as ort
import pytest

from nrp_onnx.activations import session
from nrp_onnx.doctor import examine
from nrp_onnx.errors import DeviceError
from nrp_onnx.notes import Notes
from tests.command_line import nrp_onnx


class Driver:
    """NVIDIA's driver with a number of devices."""

    def __init__(self, count: int, status: int = 0) -> None:
        self.count, self.status = count, status

    def cuInit(self, flags: int) -> int:  # noqa: N802
        return self.status

    def cuDeviceGetCount(self, place: Any) -> int:  # noqa: N802
        place._obj.value = self.count
        return 0


def with_driver(
    monkeypatch: pytest.MonkeyPatch, driver: Driver | None, missing: str | None
) -> None:
    """A machine whose loader finds this driver, and of ONNX Runtime's libraries all but one."""

    def load(name: str) -> Any:
        if "libcuda" in name or "nvcuda" in name:
            if driver is None:
                raise OSError("libcuda.so.1: cannot open shared object file")
            return driver
        if missing is not None and "providers_cuda" in name:
            raise OSError(f"{missing}: cannot open shared object file: No such file or directory")
        return object()

    monkeypatch.setattr(ctypes, "CDLL", load)
    monkeypatch.setattr(ort, "get_available_providers", lambda: [session.CUDA, session.TENSORRT])


@pytest.mark.parametrize(
    ("driver", "missing", "parts"),
    [
        (None, None, ["no GPU", "nvidia-smi"]),
        (Driver(0), None, ["no GPU", "CUDA_VISIBLE_DEVICES"]),
        (Driver(1, status=100), None, ["no GPU"]),
        (Driver(1), "libcudnn.so.9", ["library", "libcudnn.so.9", "nrp-onnx[cuda]"]),
    ],
)
def test_the_reason_is_named(
    monkeypatch: pytest.MonkeyPatch, driver: Driver | None, missing: str | None, parts: list[str]
) -> None:
    with_driver(monkeypatch, driver, missing)
    with pytest.raises(DeviceError) as caught:
        session.open_session(b"", "cuda", Notes(), "model.onnx")
    for part in ["--device cuda", *parts]:
        assert part in str(caught.value)


def test_nothing_stands_in_the_way(monkeypatch: pytest.MonkeyPatch) -> None:
    with_driver(monkeypatch, Driver(2), None)
    assert session.n_gpus() == 2
    assert session.why_not("cuda") is None
    assert session.gpu_is_present()


def test_a_session_that_fell_back_is_an_error(
    monkeypatch: pytest.MonkeyPatch, model_path: Any
) -> None:
    """ONNX Runtime replaces a provider that does not start by the CPU, and only logs it."""
    if session.n_gpus():
        pytest.skip("there is a GPU here")
    monkeypatch.setattr(session, "why_not", lambda device: None)
    with pytest.raises(DeviceError, match=r"expected CUDAExecutionProvider; found .*CPU"):
        session.open_session(model_path.read_bytes(), "cuda", Notes(), "model.onnx")


def test_auto_says_what_it_took(monkeypatch: pytest.MonkeyPatch, model_path: Any) -> None:
    monkeypatch.setattr(session, "gpu_is_present", lambda: False)
    notes = Notes()
    found = session.open_session(model_path.read_bytes(), "auto", notes, "model.onnx")
    assert found.get_providers() == ["CPUExecutionProvider"]
    assert notes.said == ["--device auto: running on cpu"]


def test_loading_libraries_keeps_stdout_clean(capfd: pytest.CaptureFixture[str]) -> None:
    session.load_libraries()
    assert capfd.readouterr().out == ""


def test_doctor() -> None:
    run = nrp_onnx("doctor", "--json")
    assert run.returncode == 0, run.stderr
    found = json.loads(run.stdout)
    assert {"python", "numpy", "onnx", "torch", "pyarrow"} <= set(found["versions"])
    assert any(name.startswith("onnxruntime") for name in found["versions"])
    assert found["devices"]["cpu"] == "works"
    assert {"cuda", "tensorrt", "providers", "GPUs"} <= set(found["devices"])
    assert "free" in found["disk"]["this folder"]
    assert "numpy: " in nrp_onnx("doctor").stdout
    assert set(examine()) == set(found)
