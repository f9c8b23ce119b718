"""The images of a folder or of a zip file, by their names."""

import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from nrp_onnx.errors import RecordingsError
from nrp_onnx.recordings.folder import leaves_folder
from nrp_onnx.recordings.problems import some

_SUFFIXES = frozenset((".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".gif", ".ppm"))


@dataclass(frozen=True)
class ImageSource:
    """Files by their names inside a folder or zip, with / between folders.

    A folder that holds all files is left out of their names.
    """

    path: Path
    names: frozenset[str]
    read: Callable[[str], bytes]

    def images(self) -> list[str]:
        """The names of those with the suffix of an image, in the order of the names as text."""
        return sorted(
            name for name in self.names if PurePosixPath(name).suffix.lower() in _SUFFIXES
        )


@contextmanager
def open_images(path: Path) -> Iterator[ImageSource]:
    """Open a folder or zip of images; of a zip nothing is unpacked.

    Raises:
        RecordingsError: if it is neither, or the zip has an entry that leaves its folder.
    """
    if path.is_dir():
        files = [file.relative_to(path).as_posix() for file in path.rglob("*") if file.is_file()]
        yield _source(path, files, lambda name: (path / name).read_bytes())
        return
    if not zipfile.is_zipfile(path):
        raise RecordingsError(
            "no such images",
            where=path,
            expected="a folder or a zip of images",
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


def _source(path: Path, files: Sequence[str], read: Callable[[str], bytes]) -> ImageSource:
    # macOS leaves __MACOSX/ and ._ files beside the images, Windows and others hidden files.
    names = [
        name
        for name in files
        if "__MACOSX" not in name.split("/") and not PurePosixPath(name).name.startswith(".")
    ]
    tops = {name.split("/")[0] if "/" in name else "" for name in names}
    top = f"{tops.pop()}/" if len(tops) == 1 and "" not in tops else ""
    shorter = frozenset(name.removeprefix(top) for name in names)
    return ImageSource(path, shorter, lambda name: read(top + name))
