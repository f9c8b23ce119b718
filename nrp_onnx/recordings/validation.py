"""Says all that is wrong with a recordings folder."""

from pathlib import Path

from PIL import Image

from nrp_onnx.errors import RecordingsError
from nrp_onnx.recordings.folder import problems_of, read_unchecked


def image_problem(path: Path) -> str | None:
    """Why an image file does not open, or None if it does."""
    try:
        with Image.open(path) as image:
            image.load()
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        return f"{type(error).__name__}: {error}"
    return None


def unreadable_image(path: Path, reason: str) -> RecordingsError:
    """The error for a stimulus that does not open."""
    size = f"{path.stat().st_size} bytes" if path.exists() else "no file"
    return RecordingsError(
        "the stimulus does not open",
        where=path,
        expected="a whole image (PNG, JPEG, ...)",
        found=f"{size} ({reason})",
    )


def validate_recordings(folder: Path) -> list[str]:
    """All problems of a recordings folder, one line each; every image is decoded."""
    try:
        recordings = read_unchecked(folder)
    except RecordingsError as error:
        return [str(error)]
    problems = [str(problem) for problem in problems_of(recordings, folder)]
    for path in recordings.stimulus_paths:
        if path.is_file() and (reason := image_problem(path)):
            problems.append(str(unreadable_image(path, reason)))
    return problems
