"""The image files of recordings: found in a folder or zip file, checked, copied."""

import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path, PurePosixPath, PureWindowsPath

from PIL import Image

from nrp_onnx.decoding import decode, is_hidden, natural_order
from nrp_onnx.errors import RecordingsError
from nrp_onnx.image_sets import StoredImage, is_image_set, open_image_set
from nrp_onnx.progress import progress_bar
from nrp_onnx.recordings.checks import some

_SUFFIXES = frozenset((".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".gif", ".ppm"))


@dataclass(frozen=True)
class ImageSource:
    """Files by their names inside a folder or zip, with / between folders.

    A folder that holds all files is left out of their names.

    Attributes:
        rows: names of the images of an HDF5 or Parquet file by their ids, in its order; None for others.
    """

    path: Path
    names: frozenset[str]
    read: Callable[[str], bytes]
    rows: dict[str, str] | None = None

    def images(self) -> list[str]:
        """The names of those with the suffix of an image, in `natural_order`."""
        return natural_order(
            name for name in self.names if PurePosixPath(name).suffix.lower() in _SUFFIXES
        )


@contextmanager
def open_images(path: Path) -> Iterator[ImageSource]:
    """Open a folder, zip, HDF5 or Parquet file of images; nothing is unpacked or read yet.

    Raises:
        RecordingsError: if it is neither, or the zip has an entry that leaves its folder.
    """
    if path.is_dir():
        files = [file.relative_to(path).as_posix() for file in path.rglob("*") if file.is_file()]
        yield _source(path, files, lambda name: (path / name).read_bytes())
        return
    if is_image_set(path):
        yield _source_of_set(path)
        return
    if not zipfile.is_zipfile(path):
        raise RecordingsError(
            "no such images",
            where=path,
            expected="a folder or a zip of images, or an HDF5 or Parquet file",
            found="a file of another kind" if path.exists() else "nothing",
        )
    with zipfile.ZipFile(path) as archive:
        entries = [entry.filename for entry in archive.infolist() if not entry.is_dir()]
        if bad := [name for name in archive.namelist() if leaves_folder(name)]:
            raise RecordingsError(
                f"the zip has {len(bad)} entries that leave its folder",
                where=path,
                expected="relative names without ..",
                found=some(bad),
            )

        def read(name: str) -> bytes:
            try:
                return archive.read(name)
            # NotImplementedError: a compression that Python lacks; RuntimeError: a password.
            except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:
                raise RecordingsError(
                    f"the entry {name} cannot be unpacked",
                    where=path,
                    expected="a whole zip without a password",
                    found=error,
                ) from None

        yield _source(path, entries, read)


def _source_of_set(path: Path) -> ImageSource:
    """Each image as a file: of Parquet as it is there, of HDF5 as PNG."""
    found = open_image_set(path)

    def read(image: StoredImage) -> bytes:
        content = image.content()
        if isinstance(content, bytes):
            return content
        png = BytesIO()
        Image.fromarray(content).save(png, "PNG", compress_level=1)
        return png.getvalue()

    names = {
        name: name if PurePosixPath(name).suffix.lower() in _SUFFIXES else f"{name}.png"
        for name in found.ids
    }
    if bad := [name for name in names.values() if leaves_folder(name)]:
        raise RecordingsError(
            f"{len(bad)} ids of images are no names of files",
            where=path,
            expected="relative names without ..",
            found=some(bad),
        )
    by_name = dict(zip(names.values(), found.images, strict=True))
    return ImageSource(path, frozenset(by_name), lambda name: read(by_name[name]), names)


def _source(path: Path, files: Sequence[str], read: Callable[[str], bytes]) -> ImageSource:
    names = [name for name in files if not is_hidden(name)]
    tops = {name.split("/")[0] if "/" in name else "" for name in names}
    top = f"{tops.pop()}/" if len(tops) == 1 and "" not in tops else ""
    shorter = frozenset(name.removeprefix(top) for name in names)
    return ImageSource(path, shorter, lambda name: read(top + name))


def copy_images(source: ImageSource, filenames: Sequence[str], folder: Path) -> None:
    """Copy images byte for byte into ``folder``, each checked to open.

    Raises:
        RecordingsError: if one does not open.
    """
    names = dict.fromkeys(filenames)
    with progress_bar("Copying the images", len(names)) as advance:
        for filename in names:
            data = source.read(filename)
            decode(data, f"{source.path}, {filename}")
            place = folder / filename
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(data)
            advance(1)


def leaves_folder(filename: str) -> bool:
    """Whether a file name is absolute or climbs out of the folder that it is relative to."""
    windows = PureWindowsPath(filename)
    return (
        PurePosixPath(filename).is_absolute()
        or bool(windows.drive or windows.root)
        or ".." in windows.parts
    )
