"""Weights in files beside an ONNX file: found, checked, hashed, read and written.

A tensor names its file, and such a name could be that of any file of the machine. So every name is
checked before anything is read. The weights then stay where they are: the graph refers to them, and
ONNX Runtime maps them, so that models of more than 2 GB, which no protobuf message can hold, go the
same way as small ones.
"""

import hashlib
import math
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path, PureWindowsPath

import onnx
import onnx_ir as ir
import onnxruntime as ort

from nrp_onnx.errors import ModelError
from nrp_onnx.files import sha256_of_file, whole_file

#: External tensors up to this many bytes are read in: shapes, axes and the like, which shape
#: inference and the opset converter have to see.
SMALL_BYTES = 1024


def external_tensors(proto: onnx.ModelProto) -> list[onnx.TensorProto]:
    """All tensors of a model whose numbers lie in another file, those of subgraphs included."""
    return [tensor for tensor in _tensors(proto) if _is_external(tensor)]


def bytes_inside(proto: onnx.ModelProto) -> int:
    """What the numbers in a model itself need; text is not counted."""
    return sum(
        tensor_bytes(tensor)
        for tensor in _tensors(proto)
        if not _is_external(tensor) and tensor.data_type != onnx.TensorProto.STRING
    )


def check_external_data(proto: onnx.ModelProto, path: Path) -> None:
    """Refuse external data that leave the model's folder, or are not all there.

    Args:
        path: of the ONNX file, in whose folder its data lie.

    Raises:
        ModelError: it names the tensor.
    """
    home = path.parent.resolve()
    for tensor in external_tensors(proto):
        location, offset, _ = _place(tensor)
        length = tensor_bytes(tensor)
        given = PureWindowsPath(location)  # also knows the paths of POSIX
        file = (home / location).resolve()
        if (
            not location
            or given.drive
            or given.root
            or ".." in given.parts
            or not file.is_relative_to(home)
        ):
            raise ModelError(
                f"the tensor {tensor.name} takes its numbers from outside the model's folder",
                where=path,
                expected="the name of a file in that folder",
                found=location or "no name",
                fix="Save the model again with its data beside it.",
            )
        if not file.is_file():
            raise ModelError(
                f"the data file of the tensor {tensor.name} is not there",
                where=path,
                expected=file,
                found="a folder" if file.is_dir() else "nothing",
                fix="Copy it there too.",
            )
        size = file.stat().st_size
        if offset < 0 or offset + length > size:
            raise ModelError(
                f"the data of the tensor {tensor.name} are not all there",
                where=path,
                expected=f"{file.name} of at least {offset + length} bytes",
                found=f"{size} bytes",
                fix="Export or download it again.",
            )


def read_small_tensors(proto: onnx.ModelProto, folder: Path) -> None:
    """Read external tensors into the model, in place: small ones, and those that are no weights.

    ONNX Runtime needs the numbers of both when it loads a model.
    """
    weights = {tensor.name for tensor in proto.graph.initializer}
    for tensor in external_tensors(proto):
        if tensor.name not in weights or tensor_bytes(tensor) <= SMALL_BYTES:
            read_tensor(tensor, folder)


def without_external_weights(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The model for ``onnx.checker``, which would look for data files where it is run.

    Weights that lie in other files become inputs of the graph.
    """
    if not external_tensors(proto):
        return proto
    bare = onnx.ModelProto()
    bare.CopyFrom(proto)
    kept = [tensor for tensor in bare.graph.initializer if not _is_external(tensor)]
    for tensor in proto.graph.initializer:
        if _is_external(tensor):
            bare.graph.input.append(
                onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
            )
    del bare.graph.initializer[:]
    bare.graph.initializer.extend(kept)
    return bare


def read_tensor(tensor: onnx.TensorProto, folder: Path) -> None:
    """Read one external tensor into the model, in place."""
    location, offset, _ = _place(tensor)
    with (folder / location).open("rb") as file:
        file.seek(offset)
        tensor.raw_data = file.read(tensor_bytes(tensor))
    del tensor.external_data[:]
    tensor.data_location = onnx.TensorProto.DEFAULT


def tensor_bytes(tensor: onnx.TensorProto) -> int:
    """What the numbers of a tensor need; what the file says of it must agree.

    Raises:
        ModelError: if it does not.
    """
    bits = math.prod(tensor.dims) * int(ir.DataType(tensor.data_type).bitwidth)
    needed: int = -(-bits // 8)
    _, _, said = _place(tensor)
    if said not in (None, needed):
        raise ModelError(
            f"the tensor {tensor.name} is damaged", expected=f"{needed} bytes", found=said
        )
    return needed


def sha256_of_model(proto: onnx.ModelProto, path: Path) -> str:
    """SHA-256 of an ONNX file, or over it and its data files where it has some."""
    own = sha256_of_file(path)
    locations = sorted({_place(tensor)[0] for tensor in external_tensors(proto)})
    if not locations:
        return own
    digests = [own, *(sha256_of_file(path.parent / location) for location in locations)]
    return hashlib.sha256("".join(digests).encode()).hexdigest()


def session_options(folder: Path | None) -> ort.SessionOptions:
    """Options of a session on a serialised model whose external data lie in a folder."""
    options = ort.SessionOptions()
    options.log_severity_level = 4  # errors are raised, so none need be printed too
    if folder is not None:
        options.add_session_config_entry(
            "session.model_external_initializers_file_folder_path", str(folder.resolve())
        )
    return options


def _is_external(tensor: onnx.TensorProto) -> bool:
    return bool(tensor.data_location == onnx.TensorProto.EXTERNAL)


def _place(tensor: onnx.TensorProto) -> tuple[str, int, int | None]:
    """Location, offset and length as the file says them."""
    said = {entry.key: entry.value for entry in tensor.external_data}
    try:
        length = int(said["length"]) if "length" in said else None
        return said.get("location", ""), int(said.get("offset", 0)), length
    except ValueError:
        raise ModelError(
            f"the tensor {tensor.name} is damaged", expected="a number of bytes", found=said
        ) from None


def _tensors(proto: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    yield from _graph_tensors(proto.graph)
    for function in proto.functions:
        yield from _node_tensors(function.node)


def _graph_tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    yield from _node_tensors(graph.node)


def _node_tensors(nodes: Sequence[onnx.NodeProto]) -> Iterator[onnx.TensorProto]:
    for node in nodes:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            sparse = [*attribute.sparse_tensors]
            if attribute.HasField("sparse_tensor"):
                sparse.append(attribute.sparse_tensor)
            for part in sparse:
                yield from (part.values, part.indices)
            if attribute.HasField("g"):
                yield from _graph_tensors(attribute.g)
            for graph in attribute.graphs:
                yield from _graph_tensors(graph)


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
