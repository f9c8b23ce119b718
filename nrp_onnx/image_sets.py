"""Many images in one file, HDF5 or Parquet, read a few at a time.

- HDF5 (``FILE.h5`` or ``FILE.h5:KEY``): a data set of uint8 (n, height, width, 3), RGB.
- Parquet: a column ``image`` of encoded images (PNG, JPEG, ...): binary, or a struct with ``bytes`` and
  perhaps ``path``, as Hugging Face's datasets write it.

The ids of the images are ``stimulus_id`` or ``id`` where the file has such a column (HDF5: a data set
of n texts or integers beside the images), then ``path``; else the numbers of the rows.
"""

import re
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from nrp_onnx.decoding import Decoded, decode
from nrp_onnx.errors import OptionError, RecordingsError
from nrp_onnx.packages import HDF5_FIX, imported

_SET = re.compile(r"(?P<file>.+\.(?:h5|hdf5|parquet))(?::(?P<key>.+))?", re.I)
_IDS = ("stimulus_id", "id")
#: Rows of a Parquet file that are read at a time; two such blocks are kept.
_ROWS = 32
#: Bytes: of Parquet pages on their way; of compressed HDF5 chunks that hold several images.
_BUFFER = 2**20
_CHUNK_CACHE = 64 * 2**20
_NOT_FOLLOWED = "images in the file itself, at a path without links"


def is_image_set(path: Path) -> bool:
    """Whether a path names a set of images, and no folder."""
    return _SET.fullmatch(str(path)) is not None and not path.is_dir()


@dataclass(frozen=True)
class StoredImage:
    """One image of a set; it takes the place of a path."""

    file: Path
    key: str | None
    row: int

    def resolve(self) -> "StoredImage":
        """The same with a whole path, for another process."""
        return replace(self, file=self.file.resolve())

    def __str__(self) -> str:
        return f"{self.file}, image {self.row}"

    def content(self) -> np.ndarray | bytes:
        """Its pixels, uint8 RGB (height, width, 3), or an encoded image.

        Raises:
            RecordingsError: if it cannot be read.
        """
        found = _opened(self.file, self.key, self.file.stat().st_mtime_ns)
        try:
            return found.read(self.row)
        except (OSError, RuntimeError, pa.ArrowException) as error:
            raise _unreadable(self.file, error) from None

    def decoded(self) -> Decoded:
        """As uint8 RGB.

        Raises:
            RecordingsError: if it does not open.
        """
        content = self.content()
        if isinstance(content, bytes):
            return decode(content, self)
        return Decoded(content, "RGB", 8, transparent=False, turned=False)


@dataclass(frozen=True)
class ImageSet:
    """The images of a file, in the order of its rows.

    Attributes:
        ids: unique texts.
        images: to read, each when it is wanted.
    """

    file: Path
    key: str | None
    ids: tuple[str, ...]
    images: tuple[StoredImage, ...]


def open_image_set(path: Path) -> ImageSet:
    """Find the images in ``FILE.h5``, ``FILE.h5:KEY`` or ``FILE.parquet``; none is read yet.

    Raises:
        RecordingsError: if the file is damaged or holds no images, takes them from elsewhere, or has
            an id twice.
        OptionError: if KEY does not name them, or h5py is not installed.
    """
    named = _SET.fullmatch(str(path))
    assert named is not None, "is_image_set says so"
    file, key = Path(named["file"]), named["key"]
    if not file.is_file():
        raise RecordingsError("no such images", where=file, expected="a file", found="nothing")
    if key and file.suffix.lower() == ".parquet":
        raise OptionError("a Parquet file has no keys", where=path, expected=file)
    found = _opened(file, key, file.stat().st_mtime_ns)
    ids = found.ids or tuple(map(str, range(found.length)))
    if len(set(ids)) < len(ids) or "" in ids:
        raise RecordingsError("an id of an image is empty or comes twice", where=file)
    return ImageSet(file, key, ids, tuple(StoredImage(file, key, row) for row in range(len(ids))))


@lru_cache(maxsize=2)
def _opened(file: Path, key: str | None, changed: int) -> "_Hdf5Images | _ParquetImages":
    """The open file; ``changed`` is when it was written, so that another one is opened anew."""
    if file.suffix.lower() == ".parquet":
        return _ParquetImages(file)
    return _Hdf5Images(file, key)


class _Hdf5Images:
    def __init__(self, file: Path, key: str | None) -> None:
        h5py = imported("h5py", HDF5_FIX)
        try:
            opened = h5py.File(file, "r", rdcc_nbytes=_CHUNK_CACHE)
            found = dict(_data_sets(opened, h5py))
        except (OSError, RuntimeError, KeyError) as error:
            raise _unreadable(file, error) from None
        images = [name for name, item in found.items() if _holds_images(item)]
        if key is None and len(images) != 1:
            raise OptionError(
                f"the file holds {len(images)} sets of images",
                where=file,
                expected="one of uint8 (n, height, width, 3), or its key",
                found=", ".join(map(repr, images)) or "none",
                fix=f"Name one, as {file.name}:KEY.",
            )
        name = (key or images[0]).strip("/")
        if name not in images:
            raise OptionError(
                "the file has no such images",
                where=file,
                expected=f"uint8 (n, height, width, 3), {_NOT_FOLLOWED}; KEY as one of "
                f"{', '.join(map(repr, images)) or 'none'}",
                found=repr(key),
            )
        self._images = found[name]
        self.length = len(self._images)
        folder = name.rpartition("/")[0]
        beside = [f"{folder}/{column}".strip("/") for column in (*_IDS, "path")]
        column = next((one for one in beside if one in found), None)
        self.ids = None if column is None else _texts(found[column], self.length, file, column)

    def read(self, row: int) -> np.ndarray:
        pixels: np.ndarray = self._images[row]
        return pixels


def _data_sets(
    group: Any, h5py: Any, prefix: str = "", depth: int = 0
) -> Iterator[tuple[str, Any]]:
    """Data sets by their paths; links are not followed, nor is storage elsewhere."""
    for name in group:
        if not isinstance(group.get(name, getlink=True), h5py.HardLink):
            continue
        item = group[name]
        if isinstance(item, h5py.Group) and depth < 8:
            yield from _data_sets(item, h5py, f"{prefix}{name}/", depth + 1)
        elif isinstance(item, h5py.Dataset) and not item.external and not item.is_virtual:
            yield f"{prefix}{name}", item


def _holds_images(item: Any) -> bool:
    return bool(
        item.dtype == np.uint8 and item.ndim == 4 and item.shape[3] == 3 and min(item.shape) > 0
    )


def _texts(item: Any, length: int, file: Path, name: str) -> tuple[str, ...]:
    if item.shape != (length,) or item.dtype.kind not in "OSiu":
        raise RecordingsError(
            f"{name} does not fit the images",
            where=file,
            expected=f"{length} texts or integers",
            found=f"{item.dtype} {item.shape}",
        )
    values = item[...] if item.dtype.kind in "iu" else item.asstr(errors="replace")[...]
    return tuple(map(str, values.tolist()))


class _ParquetImages:
    """Reads forward in blocks of rows; threads ask for rows close to each other.

    What is in memory is a page of the file, as its writer cut it, and two blocks.
    """

    def __init__(self, file: Path) -> None:
        try:
            # Without a buffer, a column chunk, which may be the whole file, is read at once.
            self._file = pq.ParquetFile(file, buffer_size=_BUFFER, pre_buffer=False)
            schema = self._file.schema_arrow
        except (OSError, pa.ArrowException) as error:
            raise _unreadable(file, error) from None
        kind = schema.field("image").type if "image" in schema.names else pa.null()
        in_struct = pa.types.is_struct(kind)
        names = [kind.field(i).name for i in range(kind.num_fields)] if in_struct else []
        bytes_kind = kind.field("bytes").type if "bytes" in names else kind
        if bytes_kind not in (pa.binary(), pa.large_binary()):
            raise RecordingsError(
                "there is no column of images",
                where=file,
                expected="a column image, of encoded images: binary, or a struct with bytes",
                found=f"image {kind}"
                if "image" in schema.names
                else ", ".join(schema.names[:5]) or "none",
            )
        self._where = file
        self._column = "image.bytes" if in_struct else "image"
        self._lock = threading.Lock()
        self._blocks: list[tuple[int, list[Any]]] = []
        self._rows: Iterator[tuple[int, list[Any]]] = iter(())
        groups = self._file.metadata
        ends = np.cumsum([0, *(groups.row_group(i).num_rows for i in range(groups.num_row_groups))])
        self._starts = ends[:-1]
        self.length = int(ends[-1])
        self.ids = self._ids(schema.names, "path" in names)

    def _ids(self, columns: Sequence[str], in_struct: bool) -> tuple[str, ...] | None:
        column = next((name for name in (*_IDS, "path") if name in columns), None)
        if column is not None:
            values = self._file.read(columns=[column]).column(column).to_pylist()
            return tuple("" if value is None else str(value) for value in values)
        if not in_struct:
            return None
        table = self._file.read(columns=["image.path"]).column("image").to_pylist()
        paths = tuple(row and row["path"] for row in table)
        # Where files were put together, paths are missing or repeat.
        return paths if all(paths) and len(set(paths)) == len(paths) else None

    def read(self, row: int) -> bytes:
        with self._lock:
            if not self._blocks or row < self._blocks[0][0]:
                self._begin(row)
            while row >= self._blocks[-1][0] + len(self._blocks[-1][1]):
                self._blocks = [*self._blocks[-1:], next(self._rows)]
            block = next(b for b in reversed(self._blocks) if b[0] <= row)
            content = block[1][row - block[0]]
        if content is None:
            raise RecordingsError(
                "the image is not in the file",
                where=f"{self._where}, image {row}",
                expected="its bytes in the column image",
                found="nothing",
                fix="Embed the images in the file, or give their folder.",
            )
        return bytes(content)

    def _begin(self, row: int) -> None:
        """Read from the row group of a row on."""
        group = int(np.searchsorted(self._starts, row, side="right")) - 1
        self._rows = self._read(list(range(group, len(self._starts))), int(self._starts[group]))
        self._blocks = [next(self._rows)]

    def _read(self, groups: list[int], start: int) -> Iterator[tuple[int, list[Any]]]:
        batches = self._file.iter_batches(_ROWS, row_groups=groups, columns=[self._column])
        for batch in batches:
            images = batch.column("image")
            values = images.field("bytes") if self._column != "image" else images
            yield start, values.to_pylist()
            start += batch.num_rows


def _unreadable(file: Path, error: Exception) -> RecordingsError:
    return RecordingsError(
        "the images cannot be read",
        where=file,
        expected="a whole HDF5 or Parquet file",
        found=str(error).splitlines()[0] if str(error) else type(error).__name__,
    )
