"""Writes ONNX models: one file, or two where one protobuf message cannot hold the weights."""

import os
import tempfile
from pathlib import Path

import onnx
import onnx_ir as ir

from nrp_onnx.backbone.external_data import (
    bytes_inside,
    external_tensors,
    read_tensor,
    tensor_bytes,
)
from nrp_onnx.files import whole_file

#: What the numbers of one protobuf message may need: it holds 2 GB, and nodes and names go in, too.
PROTOBUF_LIMIT = 2**31 - 2**26


def save_model(
    proto: onnx.ModelProto,
    path: Path,
    data_folder: Path | None = None,
    limit: int = PROTOBUF_LIMIT,
) -> None:
    """Write a model, whole or not at all: ``NAME.onnx``, and ``NAME.onnx.data`` if it is over 2 GB.

    Args:
        data_folder: where the external data that the model refers to lie.
        limit: bytes of the numbers in one file at most.
    """
    outside = external_tensors(proto)
    if bytes_inside(proto) + sum(map(tensor_bytes, outside)) <= limit:
        if outside:
            assert data_folder is not None
            whole = onnx.ModelProto()
            whole.CopyFrom(proto)
            for tensor in external_tensors(whole):
                read_tensor(tensor, data_folder)
            proto = whole
        with whole_file(path) as part:
            part.write_bytes(proto.SerializeToString())
        return
    _save_two_files(proto, path, data_folder)


def _save_two_files(proto: onnx.ModelProto, path: Path, data_folder: Path | None) -> None:
    model = ir.from_proto(proto)
    if data_folder is not None:
        ir.external_data.set_base_dir(model.graph, data_folder.resolve())
    data = path.with_name(path.name + ".data")
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(
        prefix=f".{path.name}.", suffix=".part", dir=path.parent
    ) as parts:
        ir.save(model, Path(parts) / path.name, external_data=data.name)
        for name in (path.name, data.name):
            with (Path(parts) / name).open("rb") as file:
                os.fsync(file.fileno())
        # In this order there is, at any moment, the old model, none or the new one: never one with
        # the numbers of another.
        path.unlink(missing_ok=True)
        (Path(parts) / data.name).replace(data)
        (Path(parts) / path.name).replace(path)
