"""Without the packages of an extra: one line that names the extra, before anything is done."""

import sys
from pathlib import Path

import pytest

from tests.command_line import assert_one_line_error, nrp_onnx
from tests.recordings.laion_tree import write_laion

FACTORY = "from torch import nn\n\ndef make():\n    return nn.Conv2d(3, 4, 3)\n"


def test_without_onnxscript_no_pytorch_model_is_converted(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    (tmp_path / "net.py").write_text(FACTORY)
    run = nrp_onnx("convert", "torch:net.py:make", "-o", "x.onnx", "--preprocess", "raw",
                   cwd=tmp_path)  # fmt: skip
    assert_one_line_error(run, "needs the package onnxscript", "pip install 'nrp-onnx[torch]'")
    assert not (tmp_path / "x.onnx").exists()


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("rates.h5", b"\x89HDF\r\n\x1a\n"),
        ("rates.mat", b"MATLAB 7.3 MAT-file".ljust(512) + b"\x89HDF\r\n\x1a\n"),
    ],
)
def test_without_h5py_no_hdf5_is_read(
    file: str, content: bytes, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "h5py", None)
    (tmp_path / file).write_bytes(content)
    (tmp_path / "images").mkdir()
    run = nrp_onnx("recordings", "import", "images", file, "--axes", "site,stimulus", "--region",
                   "V4", "-o", "out", cwd=tmp_path)  # fmt: skip
    assert_one_line_error(run, "needs the package h5py", "pip install 'nrp-onnx[hdf5]'")


def test_without_h5py_public_recordings_are_not_downloaded(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "h5py", None)
    monkeypatch.setenv("NRP_ONNX_CACHE", str(tmp_path / "cache"))
    run = nrp_onnx("recordings", "fetch", "majajhong2015")
    assert_one_line_error(run, "needs the package h5py", "pip install 'nrp-onnx[hdf5]'")
    assert not (tmp_path / "cache").exists()


def test_without_pynwb_no_nwb_is_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "pynwb", None)
    (tmp_path / "lab.nwb").write_bytes(b"\x89HDF\r\n\x1a\n")
    run = nrp_onnx(
        "recordings", "import", "lab.nwb", "--window", 50, 150, "-o", "out", cwd=tmp_path
    )
    assert_one_line_error(run, "needs the package pynwb", "pip install 'nrp-onnx[nwb]'")


def test_without_nibabel_no_fmri_is_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    subject = write_laion(tmp_path)
    monkeypatch.setitem(sys.modules, "nibabel", None)
    run = nrp_onnx("recordings", "import", subject, "--images", tmp_path / "images", "--rois", "V1",
                   "-o", tmp_path / "out")  # fmt: skip
    assert_one_line_error(run, "needs the package nibabel", "pip install 'nrp-onnx[fmri]'")
