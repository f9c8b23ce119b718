"""Says all that is wrong with a recordings folder."""

from pathlib import Path

from nrp_onnx.errors import RecordingsError
from nrp_onnx.progress import progress_bar
from nrp_onnx.recordings.folder import STIMULI, leaves_folder, read_folder
from nrp_onnx.recordings.images import check_image
from nrp_onnx.recordings.tables import read_table


def validate_recordings(folder: Path) -> list[str]:
    """All problems of a recordings folder, one line each; every image is decoded."""
    folder = Path(folder)
    problems: list[RecordingsError] = []
    read_folder(folder, problems.append)
    # Also where another part of the folder is so wrong that there are no recordings.
    stimuli = read_table(folder / STIMULI, ("filename",), lambda problem: None)
    filenames = () if stimuli is None else stimuli.columns["filename"]
    images = [folder / "stimuli" / name for name in filenames if not leaves_folder(name)]
    with progress_bar("Decoding the images", len(images)) as advance:
        for path in images:
            try:
                if path.is_file():
                    check_image(path.read_bytes(), path)
            except RecordingsError as problem:
                problems.append(problem)
            advance(1)
    return [str(problem) for problem in problems]
