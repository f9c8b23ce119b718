"""Images to predict: files, folders, globs and zips, found before any of them is decoded."""

import glob
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from PIL import Image

from nrp_onnx.activations.images import ImageFolder
from nrp_onnx.decoding import Decoded, decode, is_hidden
from nrp_onnx.errors import RecordingsError

_GLOB = frozenset("*?[")
_WANTED = "image files, folders or zips of them, or a glob such as 'photos/*.png'"


@dataclass(frozen=True, eq=False)
class ZippedImage:
    """An image of a zip, whose text is the path of the zip and its own path inside.

    Attributes:
        archive: that stays open as long as one of its images is needed; threads may share it.
        name: of the entry.
    """

    archive: zipfile.ZipFile
    name: str

    def __str__(self) -> str:
        return f"{self.archive.filename}/{self.name}"

    def decoded(self) -> Decoded:
        """As uint8 RGB; nothing is written to disk.

        Raises:
            RecordingsError: if it cannot be unpacked, or is no image.
        """
        try:
            content = self.archive.read(self.name)
        # NotImplementedError: a compression that Python lacks; RuntimeError: a password.
        except (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError) as error:
            raise RecordingsError(
                "the image cannot be unpacked",
                where=self,
                expected="a whole zip without a password",
                found=error,
            ) from None
        return decode(content, self)


def find_images(given: Sequence[str | Path]) -> list[Path | ZippedImage]:
    """The images that a user names, in the order in which they are named.

    A folder stands for the image files in it and its subfolders, a zip for those that it holds, a glob
    (``*``, ``?``, ``[ab]``, ``**`` for any folders) for the image files and zips that it matches: each
    in the order of their paths, without hidden ones. A file that is named itself is taken whatever it
    is called, and as often as it is named.

    Example:
        >>> [str(image) for image in find_images(["cat.png", "photos", "more.zip"])]  # doctest: +SKIP
        ['cat.png', 'photos/dog.png', 'more.zip/pets/cow.png']

    Raises:
        RecordingsError: if there is nothing of a name, or no image in a folder, glob or zip.
    """
    return [image for one in given for image in _images_of(Path(one))]


def _images_of(path: Path) -> Sequence[Path | ZippedImage]:
    if path.is_dir():
        return ImageFolder(path).stimulus_paths
    if path.is_file():
        return _images_of_zip(path) if _is_zip(path) else [path]
    if not _GLOB & set(str(path)):
        raise RecordingsError("no such image", where=path, expected=_WANTED, found="nothing")
    matched = [Path(match) for match in sorted(glob.glob(str(path), recursive=True))]
    files = [
        file for file in matched if file.is_file() and (_is_zip(file) or _is_image(file.as_posix()))
    ]
    if not files:
        raise RecordingsError(
            "there are no images here",
            where=path,
            expected="a glob that matches image files (PNG, JPEG, ...) or zips of them",
            found=f"{len(matched)} other files or folders"
            if matched
            else "nothing that it matches",
        )
    return [image for file in files for image in _images_of(file)]


def _images_of_zip(path: Path) -> list[ZippedImage]:
    try:
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError) as error:
        raise RecordingsError(
            "the zip cannot be opened", where=path, expected="a whole zip of images", found=error
        ) from None
    names = sorted({name for name in archive.namelist() if _is_image(name)})
    if not names:
        raise RecordingsError(
            "there are no images here",
            where=path,
            expected="a zip with image files (PNG, JPEG, ...)",
            found=f"{len(archive.namelist())} other entries",
        )
    return [ZippedImage(archive, name) for name in names]


def _is_zip(path: Path) -> bool:
    return path.suffix.lower() == ".zip"


def _is_image(name: str) -> bool:
    suffix = PurePosixPath(name).suffix.lower()
    return suffix in Image.registered_extensions() and not is_hidden(name)
