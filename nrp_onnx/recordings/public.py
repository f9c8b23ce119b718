"""Public recordings in the cache: downloaded, checked and imported once, then opened from there.

downloads/NAME/              the files as they are published, also where a user put them by hand
downloads/NAME.lock          held by the process that downloads and imports
recordings/NAME-FINGERPRINT/ the recordings folder made from them
"""

import inspect
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from nrp_onnx.errors import OutputError, RecordingsError
from nrp_onnx.notes import Notes
from nrp_onnx.packages import HDF5_FIX, imported
from nrp_onnx.recordings.download import DownloadError, download, has_its_hash
from nrp_onnx.recordings.folder import FACTS, load_recordings
from nrp_onnx.recordings.recordings import Recordings
from nrp_onnx.recordings.registry import CACHE_VARIABLE, cache_folder
from nrp_onnx.recordings.registry_entry import Entry, PublicFile

#: What an importer is told of an entry, as far as it has such an argument.
_FROM_ENTRY = ("name", "licence", "citation", "visual_degrees", "stratify_on")


def imported_folder(entry: Entry) -> Path:
    """Where the recordings folder of an entry is, once it is imported."""
    return cache_folder() / "recordings" / f"{entry.name}-{entry.fingerprint[:12]}"


def is_cached(entry: Entry) -> bool:
    """Whether an entry opens without a download."""
    return (imported_folder(entry) / FACTS).is_file()


def open_public(entry: Entry, notes: Notes) -> Recordings:
    """Open the recordings of an entry; download, check and import them if they are not cached.

    Several processes may do so at once: one works, the others wait.

    Raises:
        RecordingsError: if the files cannot be had, are not what they should be, or do not import.
        OutputError: if the cache cannot be written.
        OptionError: if h5py, which reads them, is not installed.
    """
    folder = imported_folder(entry)
    if not is_cached(entry):
        importer = _importer(entry)
        with _locked(entry, notes) as downloads:
            if not is_cached(entry):
                paths = _files(entry, downloads, notes)
                for left_over in folder.parent.glob(f".{folder.name}.*"):
                    shutil.rmtree(left_over, ignore_errors=True)
                return importer(paths, folder, notes)
    try:
        return load_recordings(folder)
    except RecordingsError as error:
        raise RecordingsError(
            "the cached recordings are damaged",
            where=folder,
            found=error,
            fix="Delete this folder; they are imported anew.",
        ) from None


@contextmanager
def _locked(entry: Entry, notes: Notes) -> Iterator[Path]:
    """Yield the folder of the downloads while no other process works on it."""
    from filelock import FileLock, Timeout

    folder = cache_folder() / "downloads" / entry.name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder.with_name(f"{entry.name}.lock"))
        try:
            lock.acquire(timeout=0)
        except Timeout:
            notes.say(f"another process fetches {entry.name}: waiting for it")
            lock.acquire()
        try:
            yield folder
        finally:
            lock.release()
    except OSError as error:
        raise OutputError(
            f"the recordings {entry.name} cannot be kept",
            where=error.filename or folder,
            expected="a place to write to",
            found=error.strerror or error,
            fix=f"Make room there, or set {CACHE_VARIABLE} to another folder.",
        ) from None


def _files(entry: Entry, folder: Path, notes: Notes) -> dict[str, Path]:
    """The files of an entry by role, each with its hash checked."""
    missing = []
    for file in entry.files.values():
        path = folder / file.name
        if not path.exists():
            missing.append(file)
        elif not has_its_hash(path, file):
            notes.say(f"{path} has not the hash {file.hash}: it is downloaded anew")
            missing.append(file)
    for place, file in enumerate(missing):
        try:
            download(file, folder)
        except DownloadError as error:
            raise RecordingsError(
                f"{entry.name} cannot be downloaded: {error.what}",
                where=file.url,
                expected=error.expected,
                found=error.found,
                fix=f"{error.fix} {_by_hand(missing[place:], folder)}",
            ) from None
    return {role: folder / file.name for role, file in entry.files.items()}


def _by_hand(files: Sequence[PublicFile], folder: Path) -> str:
    """What to put where without a network."""
    listed = ", ".join(
        f"{file.name} ({in_megabytes(file.about_bytes)}, {file.hash}, from {file.url})"
        for file in files
    )
    return f"Or put into {folder}: {listed}"


def in_megabytes(n_bytes: int | None) -> str:
    """A size that is not exact, in words."""
    if n_bytes is None:
        return "size unknown"
    return f"about {n_bytes / 1e6:,.0f} MB" if n_bytes >= 1e6 else f"about {n_bytes / 1e3:,.0f} kB"


def _importer(entry: Entry) -> Callable[[dict[str, Path], Path, Notes], Recordings]:
    """The importer of an entry with its options, which are checked here: before a download."""
    from nrp_onnx.recordings.importers.brainio import import_brainio

    imported("h5py", HDF5_FIX)
    known = [
        name
        for name, parameter in inspect.signature(import_brainio).parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY
    ]
    chosen = {name: getattr(entry, name) for name in _FROM_ENTRY if name in known}
    free = [name for name in known if name not in (*_FROM_ENTRY, "notes")]
    for name, value in entry.options.items():
        if name not in free:
            raise RecordingsError(
                f"the importer {entry.importer} has no option {name}",
                where=f"{entry.source}, [{entry.name}.options]",
                expected=", ".join(free),
            )
        chosen[name] = tuple(value) if isinstance(value, list) else value
    return lambda paths, out, notes: import_brainio(
        paths["assembly"], paths["stimuli"], paths["images"], out, notes=notes, **chosen
    )
