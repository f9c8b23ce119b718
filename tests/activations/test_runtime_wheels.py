"""ONNX Runtime's two wheels in one environment: found, and said where CUDA is asked for."""

from importlib.metadata import PackageNotFoundError

import onnxruntime as ort
import pytest

from nrp_onnx.activations import session
from nrp_onnx.activations.session import wheels_clash
from nrp_onnx.errors import DeviceError
from nrp_onnx.notes import Notes


@pytest.mark.parametrize(
    ("installed", "clash"),
    [
        ({"onnxruntime": "1.31.1", "onnxruntime-gpu": "1.31.1"}, True),
        ({"onnxruntime-gpu": "1.31.1"}, False),
        ({"onnxruntime": "1.31.1"}, False),
        ({}, False),
    ],
)
def test_both_wheels_are_a_clash(installed: dict[str, str], clash):
    def version_of(name: str) -> str:
        if name not in installed:
            raise PackageNotFoundError(name)
        return installed[name]

    assert wheels_clash(version_of) is clash


@pytest.mark.parametrize("clash", [True, False])
def test_the_error_without_a_cuda_provider_names_the_clash(monkeypatch, clash):
    monkeypatch.setattr(session, "wheels_clash", lambda: clash)
    monkeypatch.setattr(ort, "get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(DeviceError) as caught:
        session.open_session(b"", "cuda", Notes(), "model.onnx")
    assert ("overwrite each other" in str(caught.value)) is clash
    assert "onnxruntime-gpu" in str(caught.value)
