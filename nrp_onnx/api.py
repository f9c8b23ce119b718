"""What a user calls from Python: score, extract, convert, compare, and what opens their results."""

import importlib
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from PIL import Image

from nrp_onnx.activations.extract import extract_activations
from nrp_onnx.activations.images import Stimuli
from nrp_onnx.activations.remote import folder_of
from nrp_onnx.backbone.model import load_backbone
from nrp_onnx.engine import open_engine
from nrp_onnx.errors import ModelError, RecordingsError
from nrp_onnx.files import sha256_of_file, sha256_of_json
from nrp_onnx.notes import Notes
from nrp_onnx.predictor.search_file import read_search
from nrp_onnx.recordings import Recordings, open_recordings
from nrp_onnx.report.page import write_report
from nrp_onnx.report.sites import keep_shown_images
from nrp_onnx.scoring.choices import choose_features, choose_preprocessing
from nrp_onnx.scoring.pipeline import ScoreOptions, run_score
from nrp_onnx.scoring.run_folder import REPORT_FILE, THUMBNAILS_FILE

__all__ = ["ScoreOptions", "score"]


@contextmanager
def backbone_file(model: Any, preprocess: str | None, notes: Notes) -> Iterator[Path]:
    """The ONNX file of a model; one that is made from an object is gone after the block.

    Args:
        model: a path, or what `nrp_onnx.convert` takes.
        preprocess: for an object, see `nrp_onnx.convert`.

    Raises:
        ModelError: if it is neither, or cannot be converted.
    """
    if isinstance(model, str | Path):
        yield Path(model)
        return
    # Converters are plug-ins: core code reaches them by name only.
    conversion = importlib.import_module("nrp_converters.convert")
    if not conversion.is_model(model):
        raise ModelError(
            "this is no model",
            expected="the path of an ONNX file, a torch.nn.Module or a keras.Model",
            found=type(model).__name__,
        )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{type(model).__name__}.onnx"
        conversion.convert(model, preprocessing=preprocess, notes=notes).save(path)
        yield path


@dataclass(frozen=True)
class ExtractOptions:
    """What a user can choose about an extraction; the defaults are those of the command line."""

    layers: str = "auto"
    reduce: str = "auto"
    preprocess: str | None = None
    device: str = "auto"
    skip_bad_stimuli: bool = False
    overwrite: bool = False
    engine: str = "local"
    ray_address: str | None = None


def extract(
    model: str | Path,
    stimuli: Stimuli | str | Path,
    out: str | Path,
    options: ExtractOptions | None = None,
    notes: Notes | None = None,
) -> dict[str, Any]:
    """Write the activations of images.

    Args:
        model: path of an ONNX file.
        stimuli: `Recordings`, or a folder of images, whose ids are their paths in it.
        out: the folder of the Parquet files, a path or a URI such as ``s3://bucket/folder``. An extraction that was interrupted goes on there.

    Returns:
        ``folder``, ``provider``, ``n_stimuli``, ``skipped_stimuli`` and ``layers``: of each ``name``,
        ``file``, ``shape``, ``reduction``.

    Raises:
        NrpOnnxError: for anything that is wrong with what was given.
    """
    options, notes = options or ExtractOptions(), notes or Notes()
    folder = folder_of(out)
    engine = open_engine(options.engine, options.ray_address)
    if isinstance(stimuli, str | Path):
        stimuli = ImageFolder(Path(stimuli))
    backbone = load_backbone(Path(model))
    preprocessing = choose_preprocessing(backbone, options.preprocess, notes)
    n_stimuli = len(stimuli.stimulus_ids)
    features = choose_features(backbone, options.layers, options.reduce, n_stimuli, notes)
    done = extract_activations(
        backbone,
        preprocessing,
        features,
        stimuli,
        folder,
        options.device,
        notes,
        skip_bad_stimuli=options.skip_bad_stimuli,
        overwrite=options.overwrite,
        engine=engine,
    )
    return {
        "folder": str(folder),
        "provider": done.provider,
        "n_stimuli": n_stimuli - len(done.skipped),
        "skipped_stimuli": done.skipped,
        "layers": [
            {
                "name": feature.layer.name,
                "file": path.name,
                "shape": list(feature.shape),
                "reduction": str(feature.reduction),
            }
            for feature, path in zip(done.features, done.paths, strict=True)
        ],
    }


class ImageFolder:
    """All images in a folder and its subfolders, in the order of their paths."""

    def __init__(self, folder: Path) -> None:
        known = Image.registered_extensions()
        found = [path for path in sorted(folder.rglob("*")) if path.suffix.lower() in known]
        if not found:
            raise RecordingsError(
                "there are no images here",
                where=folder,
                expected="a folder with image files (PNG, JPEG, ...)",
                found="no such folder" if not folder.is_dir() else "none",
            )
        self.stimulus_paths = tuple(found)
        self.stimulus_ids = tuple(path.relative_to(folder).as_posix() for path in found)

    @cached_property
    def stimuli_fingerprint(self) -> str:
        """SHA-256 over the ids and the bytes of all images, in order."""
        hashes = map(sha256_of_file, self.stimulus_paths)
        return sha256_of_json([list(pair) for pair in zip(self.stimulus_ids, hashes, strict=True)])


def score(
    model: str | Path | Any,
    recordings: Recordings | str | Path | None = None,
    out: str | Path | None = None,
    options: ScoreOptions | None = None,
) -> dict[str, Any]:
    """Score a backbone on recordings.

    Args:
        model: path of an ONNX file; or a ``torch.nn.Module`` or ``keras.Model``, which is converted
            first (see `nrp_onnx.convert`) and left in the output folder as backbone.onnx.
        recordings: a recordings folder, ``simulated``, ``simulated:N``, or `Recordings`; None
            takes the simulated ones.
        out: the output folder; None makes one under ``runs`` from the names of model and
            recordings.

    Returns:
        The content of result.json, and ``folder``, where the files are.

    Raises:
        NrpOnnxError: for anything that is wrong with what was given.
    """
    options, notes = options or ScoreOptions(), Notes()
    with backbone_file(model, options.preprocess, notes) as path:
        # Before the recordings, which may take minutes to make or to fetch.
        backbone, space = load_backbone(path), read_search(options.search)
        engine = open_engine(options.engine, options.ray_address)
        start = time.perf_counter()
        if not isinstance(recordings, Recordings):
            recordings = open_recordings(recordings, notes)
        seconds = round(time.perf_counter() - start, 3)
        keep_model = not isinstance(model, str | Path)
        timings = {"recordings_s": seconds}
        result = run_score(
            backbone, space, engine, recordings, out, options, notes, timings, keep_model
        )
    folder = Path(result["folder"])
    if not (folder / THUMBNAILS_FILE).is_file():
        keep_shown_images(folder, recordings)
    if options.report and not (folder / REPORT_FILE).is_file():
        write_report([folder], folder / REPORT_FILE)
    return result
